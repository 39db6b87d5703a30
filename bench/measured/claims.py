"""Claims of instants, raced for by several processes on one SQLite file: `claims.py DIRECTORY TOGETHER`."""

import asyncio
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import product
from bench.product import Product
from bench.rounds import serve

JOBS = 1_000
IN_FLIGHT = 32
FIRST_INSTANT = datetime(2100, 1, 1, tzinfo=UTC)
CONFIG = """
model:
  {provider: custom, name: nobody, base_url: "http://127.0.0.1:9/v1", model: small, api_key: no-key}
jobs:
"""
JOB = '  - {{name: job-{number}, schedule: "@daily", prompt: "Say something."}}\n'


def configuration() -> str:
    """Return jobs that are claimed and never run."""
    return CONFIG + "".join(JOB.format(number=number) for number in range(JOBS))


class Race:
    """Claims the next instant of as many jobs as are wanted, `together` of them in a transaction."""

    def __init__(self, product: Product, together: int) -> None:
        self._product, self._together = product, together
        self._instant = FIRST_INSTANT

    async def __call__(self, calls: int) -> None:
        """Ask for so many instants; whoever else asks for them may win some."""
        self._instant += timedelta(days=1)
        places = asyncio.Semaphore(IN_FLIGHT)
        names = [f"job-{number}" for number in range(calls)]

        async def claim(these: list[str]) -> None:
            async with places:
                await self._product.claim(these, self._instant)

        starts = range(0, calls, self._together)
        await asyncio.gather(*(claim(names[start : start + self._together]) for start in starts))


def main(directory: str, together: int) -> None:
    """Serve rounds."""
    with asyncio.Runner() as runner:
        settings = product.settings_in(Path(directory), configuration())
        stack = AsyncExitStack()
        opened = runner.run(stack.enter_async_context(product.opened(settings)))
        race = Race(opened, together)
        try:
            serve(lambda calls: runner.run(race(calls)))
        finally:
            runner.run(stack.aclose())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
