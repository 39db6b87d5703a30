"""The soak as a program: `python -m support.soak --seconds 3600` prints one line of JSON."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from support.soak.harness import soak


def main() -> int:
    """Soak a daemon for so long; 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--keep", type=Path, help="work in this new directory, and leave it")
    asked = parser.parse_args()
    if asked.keep:
        asked.keep.mkdir(parents=True)
        found = soak(asked.keep.absolute(), seconds=asked.seconds)
    else:
        with tempfile.TemporaryDirectory() as directory:
            found = soak(Path(directory), seconds=asked.seconds)
    print(json.dumps(found))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
