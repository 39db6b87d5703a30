"""Whole durable runs: claimed, worked on, finished on a SQLite file: `pipeline.py URL [REFUSING_URL]`."""

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import product
from bench.product import Product
from bench.provider import MODEL
from bench.rounds import serve

JOBS = 400
TOGETHER = 32
PROMPT = "Summarise what happened since {{ scheduled_for | localtime }} in three sentences."
FIRST_INSTANT = datetime(2100, 1, 1, tzinfo=UTC)
ANSWERING = """
providers:
  good: {{base_url: "{good}", credentials: [{{label: main, key: "env:BENCH_KEY"}}]}}
model: good/{model}
jobs:
"""
JOB = '  - {{name: job-{number}, schedule: "@daily", prompt: "{prompt}"}}\n'
FAILING = """
providers:
  good: {{base_url: "{good}", credentials: [{{label: main, key: "env:BENCH_KEY"}}]}}
"""
FIRST = (
    '  bad-{number}: {{base_url: "{bad}/{number}", credentials: [{{label: main, key: "env:BENCH_KEY"}}]}}\n'
)
FALLING_BACK = (
    "  - {{name: job-{number}, schedule: '@daily', prompt: '{prompt}', "
    "model: bad-{number}/{model}, fallback: [good/{model}]}}\n"
)


def configuration(good: str, bad: str | None) -> str:
    """Return jobs that are answered, or jobs whose first provider refuses: each its own, so none is known."""
    said = {"good": good, "bad": bad, "model": MODEL, "prompt": PROMPT}
    if bad is None:
        return ANSWERING.format(**said) + "".join(JOB.format(number=n, **said) for n in range(JOBS))
    first = "".join(FIRST.format(number=n, **said) for n in range(JOBS))
    falling_back = "".join(FALLING_BACK.format(number=n, **said) for n in range(JOBS))
    return f"{FAILING.format(**said)}{first}model: good/{MODEL}\njobs:\n{falling_back}"


class Rounds:
    """Claims the next instant of as many jobs as runs are wanted, and does them."""

    def __init__(self, product: Product) -> None:
        self._product, self._instant = product, FIRST_INSTANT

    async def __call__(self, calls: int) -> None:
        """Do so many runs: in transactions of as many as there are workers, and then the next ones."""
        assert calls <= JOBS
        self._instant += timedelta(days=1)
        names = [f"job-{number}" for number in range(calls)]
        claimed = [
            await self._product.claim(names[start : start + TOGETHER], self._instant)
            for start in range(0, calls, TOGETHER)
        ]
        await self._product.finish(claimed)


def main(good: str, bad: str | None = None) -> None:
    """Serve rounds; what they left is forgotten before the next one, and is not measured."""
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner() as runner:
        settings = product.settings_in(Path(directory), configuration(good, bad))
        stack = AsyncExitStack()
        opened = runner.run(stack.enter_async_context(product.opened(settings)))
        rounds = Rounds(opened)
        try:
            serve(lambda calls: runner.run(rounds(calls)), before=lambda: runner.run(opened.forget_marks()))
        finally:
            runner.run(stack.aclose())


if __name__ == "__main__":
    main(*sys.argv[1:])
