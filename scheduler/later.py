"""Queued runs that cannot begin yet: those whose next try has its time, and those behind another run."""

from collections.abc import Callable, Iterable
from datetime import datetime

from jobs import clock
from jobs.run import ClaimedRun


class Later:
    """Keeps runs for the workers until they can begin. What it forgets in a crash stands in the ledger."""

    def __init__(self, submit: Callable[[Iterable[ClaimedRun]], None]) -> None:
        self._submit = submit
        self._timed: dict[int, tuple[ClaimedRun, float]] = {}
        self._behind: dict[int, ClaimedRun] = {}

    def __len__(self) -> int:
        return len(self._timed) + len(self._behind)

    def put(self, runs: Iterable[ClaimedRun]) -> None:
        """Hand runs to the workers: now, or when the time of their next try has come."""
        now: list[ClaimedRun] = []
        for run in runs:
            if run.not_before is None:
                now.append(run)
            else:
                wait = (run.not_before - clock.utcnow()).total_seconds()
                self._timed[run.id] = (run, clock.monotonic() + wait)
        self._submit(now)

    def park(self, run: ClaimedRun) -> None:
        """Keep a run that waits for an earlier one of its job."""
        self._behind[run.id] = run

    def tick(self, now: datetime) -> None:
        """Hand over what is due by now; asked every second. A clock set back makes nobody wait longer."""
        passed = clock.monotonic()
        due = [
            run
            for run, until in self._timed.values()
            if run.not_before is None or run.not_before <= now or until <= passed
        ]
        for run in due:
            del self._timed[run.id]
        self._submit(due)

    def ended(self, job: str) -> None:
        """Hand over the first that waited for a run of this job; it comes back if it cannot begin yet."""
        self._free(min((run.id for run in self._behind.values() if run.job == job), default=None))

    def look_again(self) -> None:
        """Hand over the first of each job: what they wait for may have ended in another process."""
        for job in {run.job for run in self._behind.values()}:
            self.ended(job)

    def forget(self, run_id: int) -> bool:
        """Drop a run that was cancelled; returns whether it was here."""
        here = run_id in self._timed or run_id in self._behind
        self._timed.pop(run_id, None)
        self._behind.pop(run_id, None)
        return here

    def _free(self, run_id: int | None) -> None:
        if run_id is not None:
            self._submit([self._behind.pop(run_id)])
