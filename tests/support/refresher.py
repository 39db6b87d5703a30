"""A process that asks a provider whose login has ended, whenever it is told to; see test_shared_refresh."""

import asyncio
import sys
from pathlib import Path

from jobs.events import RefreshSettled
from support.house import logged_in, open_house


async def main(directory: Path, base_url: str, token_url: str) -> None:
    """Complete one request for each line of standard input; print what its refresh came to."""
    loop = asyncio.get_running_loop()
    async with open_house(directory, {"login": logged_in(base_url, token_url)}) as house:
        print("ready", flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            await house.complete(house.target("login"))
            outcomes = [event.outcome for event in house.events if isinstance(event, RefreshSettled)]
            house.events.clear()
            print(" ".join(outcomes) or "fresh", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
