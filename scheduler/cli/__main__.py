"""`python -m scheduler.cli`: the same as `promptd`."""

import sys

from scheduler.cli import main

if __name__ == "__main__":
    sys.exit(main())
