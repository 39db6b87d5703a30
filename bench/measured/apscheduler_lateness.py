"""How late APScheduler alone is, with its defaults and a job that does nothing, on the same lines."""

import json
import logging
import sys
import time
from datetime import UTC, datetime, timedelta
from threading import Lock

from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from bench.lines import LINES


def nothing() -> None:
    """Be run."""


class Ear:
    """Notes when each run was begun, by the instant that it was due at."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.dropped = 0
        self._lock = Lock()

    def ran(self, event: JobEvent) -> None:
        """Hear of a run."""
        late = datetime.now(UTC).timestamp() - event.scheduled_run_time.timestamp()
        with self._lock:
            self.late.append(late)

    def missed(self, _event: JobEvent) -> None:
        """Hear of an instant that was dropped."""
        with self._lock:
            self.dropped += 1


def trigger(line: str) -> CronTrigger:
    """Return APScheduler's trigger for a six-field line (no field here names days)."""
    second, minute, hour, *_ = line.split()
    return CronTrigger(second=second, minute=minute, hour=hour, timezone=UTC)


def main(which: str, seconds: float) -> None:
    """Run once; print what was heard as JSON."""
    ear = Ear()
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.add_listener(ear.ran, EVENT_JOB_EXECUTED)
    scheduler.add_listener(ear.missed, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
    base = datetime.now(UTC) + timedelta(seconds=12)
    for line in LINES[which](base):
        scheduler.add_job(nothing, trigger(line))
    logging.disable(logging.WARNING)  # a line for each instant that it drops
    scheduler.start()
    time.sleep(seconds)
    scheduler.shutdown(wait=False)
    print(json.dumps({"late": ear.late, "dropped": ear.dropped}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
