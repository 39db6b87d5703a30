"""litellm's Router with a fallback, in the environment of the peers: `router.py URL FIRST_URL`."""

import asyncio
import logging
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks a public host for prices as it is imported

import litellm

from bench.provider import MODEL, PROMPT
from bench.rounds import serve

AT_ONCE = 32
MESSAGES: Any = [{"role": "user", "content": PROMPT}]


def _deployment(name: str, url: str) -> dict[str, Any]:
    asked = {"model": f"openai/{MODEL}", "api_base": url, "api_key": "sk-bench", "max_retries": 0}
    return {"model_name": name, "litellm_params": asked}


def opened(first_url: str, second_url: str) -> litellm.Router:
    """Return a router that falls back from the first to the second, and does so each time."""
    return litellm.Router(
        model_list=[_deployment("first", first_url), _deployment("second", second_url)],
        fallbacks=[{"first": ["second"]}],
        num_retries=0,
        disable_cooldowns=True,
    )


async def asked(router: litellm.Router, calls: int) -> None:
    """Make so many calls, a bounded number at once."""
    places = asyncio.Semaphore(AT_ONCE)

    async def ask() -> None:
        async with places:
            answer = await router.acompletion(model="first", messages=MESSAGES)
            assert answer.choices[0].message.content

    await asyncio.gather(*(ask() for _ in range(calls)))


def main(second_url: str, first_url: str) -> None:
    """Serve rounds."""
    litellm.suppress_debug_info = True
    logging.disable(logging.ERROR)
    with asyncio.Runner() as runner:
        router = opened(first_url, second_url)
        serve(lambda calls: runner.run(asked(router, calls)))


if __name__ == "__main__":
    main(*sys.argv[1:])
