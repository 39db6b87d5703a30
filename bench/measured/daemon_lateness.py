"""How late the daemon claims: 10,000 schedules with nobody to ask: `daemon_lateness.py WHICH SECONDS`."""

import asyncio
import json
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import product
from bench.lines import LINES
from jobs import clock
from jobs.events import Event, RunClaimed, RunDecided, RunFinished
from jobs.run import RunState

HEAD = """
timezone: UTC
model:
  {provider: custom, name: nobody, base_url: "http://127.0.0.1:9/v1", model: small, api_key: no-key}
jobs:
"""


class Ear:
    """Notes when each run was claimed, durably: the event comes after the commit.

    What fell due before the daemon was ready is not counted: that is start-up, measured elsewhere.
    """

    def __init__(self) -> None:
        self.late: list[float] = []
        self.finished = self.dropped = 0
        self._since = datetime.max.replace(tzinfo=UTC)

    def ready(self) -> None:
        """Begin to count."""
        self._since = clock.utcnow()

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        match event:
            case RunClaimed(run=run) if run.scheduled_for > self._since:
                self.late.append((clock.utcnow() - run.scheduled_for).total_seconds())
            case RunFinished():
                self.finished += 1
            case RunDecided(_, due, RunState.MISSED | RunState.SKIPPED, _, count) if due > self._since:
                self.dropped += count
            case _:
                return


def configuration(which: str, base: datetime) -> str:
    """Return 10,000 jobs with the lines of a load."""
    jobs = (
        f'  - {{name: job-{number}, schedule: "{line}", prompt: "Say something."}}\n'
        for number, line in enumerate(LINES[which](base))
    )
    return HEAD + "".join(jobs)


def main(which: str, seconds: float) -> None:
    """Run once; print what was heard as JSON."""
    ear = Ear()
    with tempfile.TemporaryDirectory() as directory:
        base = clock.utcnow() + timedelta(seconds=12)
        settings = product.settings_in(Path(directory), configuration(which, base))
        asyncio.run(product.run_stubbed_daemon(settings, seconds=seconds, hear=ear, ready=ear.ready))
    said = {"late": ear.late, "dropped": ear.dropped, "finished": ear.finished}
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
