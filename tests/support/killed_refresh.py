"""`promptd`, which is killed (SIGKILL, by itself) at a named point of the first refresh that it makes.

`unsent`: the attempt is committed, its request has not left. `unstored`: the token endpoint has answered, the
new tokens are not committed. `stored`: they are, and nothing else has happened since.
"""

import os
import signal
import sys
from typing import Any

from jobs.providers.client import Client
from jobs.store import tokens
from scheduler.cli import main


def die(*_args: Any, **_kwargs: Any) -> Any:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


POINTS = {
    "unsent": (Client, "post_form"),
    "unstored": (tokens, "replace"),
    "stored": (tokens, "release_lease"),
}

if __name__ == "__main__":
    place, name = POINTS[sys.argv.pop(1)]
    setattr(place, name, die)
    sys.exit(main())
