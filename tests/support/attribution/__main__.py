"""S17 as a program: `python -m support.attribution --seed 1 --requests 900` prints what it found, in JSON."""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from support.attribution.breaks import BREAKS, broken_store
from support.attribution.property import examine
from support.attribution.runs import store_of


def main() -> int:
    """Run one world; 1 when the oracle has something to say."""
    parser = argparse.ArgumentParser(prog="attribution", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--broken", choices=sorted(BREAKS), help="lay the blame astray, in this way")
    asked = parser.parse_args()
    make_store = broken_store(asked.broken) if asked.broken else store_of
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(
            examine(Path(directory), seed=asked.seed, requests=asked.requests, make_store=make_store)
        )
    print(json.dumps(found.shown(), indent=1))
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
