"""The crash harness as a program: `python -m support.crash --rounds 500 --seed 7` prints JSON."""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

from support.crash.harness import crash
from support.crash.rounds import ROUNDS


def main() -> int:
    """Play so many rounds; 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="crash", description=__doc__)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--only", choices=sorted(ROUNDS), help="kill at this point alone")
    parser.add_argument("--keep", type=Path, help="play in this new directory, and leave it")
    asked = parser.parse_args()
    play = partial(crash, seed=asked.seed, rounds=asked.rounds, only=asked.only, tell=_say)
    if asked.keep:
        asked.keep.mkdir(parents=True)
        found = play(asked.keep)
    else:
        with tempfile.TemporaryDirectory() as directory:
            found = play(Path(directory))
    print(json.dumps(found.shown(), indent=1))
    return 1 if found.wrong else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
