"""The bare openai SDK, as a program without promptd would use it: `sdk.py HOW URL [REFUSING_URL]`."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from openai import AsyncOpenAI, AuthenticationError, DefaultAioHttpClient, OpenAI

from bench.provider import MODEL, PROMPT
from bench.rounds import serve

AT_ONCE = 32
MESSAGES: Any = [{"role": "user", "content": PROMPT}]


def call(client: OpenAI) -> None:
    """Ask once; the answer is read as the SDK's typed value."""
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content


def call_twice(refused: OpenAI, client: OpenAI) -> None:
    """Fail over as one would by hand: the first answers 401, the second answers."""
    try:
        call(refused)
    except AuthenticationError:
        call(client)


def shared(url: str) -> OpenAI:
    """Return the one client that all calls share; what is asked again would not be the same work."""
    return OpenAI(api_key="sk-bench", base_url=url, max_retries=0)


def in_a_row(url: str) -> None:
    """One call after the other."""
    client = shared(url)
    serve(lambda calls: [call(client) for _ in range(calls)] and None)


def in_threads(url: str) -> None:
    """Many threads on one shared client, as a program with blocking calls does many at once."""
    client = shared(url)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        serve(lambda calls: list(pool.map(call, [client] * calls)) and None)


def failing_over(url: str, refusing_url: str) -> None:
    """Two calls for each: the first is refused. In threads, as above."""
    client, refused = shared(url), shared(refusing_url)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        serve(lambda calls: list(pool.map(call_twice, [refused] * calls, [client] * calls)) and None)


async def _asked(client: AsyncOpenAI, calls: int) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def ask() -> None:
        async with places:
            answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
            assert answer.choices[0].message.content

    await asyncio.gather(*(ask() for _ in range(calls)))


async def _opened(url: str) -> AsyncOpenAI:
    http = DefaultAioHttpClient()
    return AsyncOpenAI(api_key="sk-bench", base_url=url, max_retries=0, http_client=http)


def on_aiohttp(url: str) -> None:
    """AsyncOpenAI on its aiohttp transport, one shared client."""
    with asyncio.Runner() as runner:
        client = runner.run(_opened(url))
        serve(lambda calls: runner.run(_asked(client, calls)))
        runner.run(client.close())


HOW = {
    "row": in_a_row,
    "threads": in_threads,
    "aiohttp": on_aiohttp,
    "failover": failing_over,
}

if __name__ == "__main__":
    HOW[sys.argv[1]](*sys.argv[2:])
