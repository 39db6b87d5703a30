"""`promptd`, in which APScheduler's main loop ends the first time that it should fire.

APScheduler looks at its jobs once as it starts and once as our entry is added; the third time is the first
due instant. An exception there leaves it without a timer, while it still says that it is running.
"""

import sys
from itertools import count

from apscheduler.schedulers.base import BaseScheduler

from scheduler.cli import main

FAULTY = 3
turns = count(1)
look_at_jobs = BaseScheduler._process_jobs


def look_once_too_often(scheduler: BaseScheduler) -> float | None:
    """Look at the jobs, but fail at one turn."""
    if next(turns) == FAULTY:
        raise RuntimeError("a fault was injected into APScheduler's main loop")
    wait: float | None = look_at_jobs(scheduler)
    return wait


if __name__ == "__main__":
    BaseScheduler._process_jobs = look_once_too_often
    sys.exit(main())
