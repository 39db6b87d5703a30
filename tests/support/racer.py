"""A process that claims instants of one database file as fast as it can; see test_claims."""

import sys
import time
from datetime import datetime

from sqlalchemy import Engine

from jobs.run import Reason, Trigger
from jobs.store import claims, runs
from jobs.store import jobs as job_verbs
from jobs.store.claims import JobClaim, NewRun
from jobs.store.engine import open_engine
from jobs.store.jobs import JobState
from support.ledger import NOW, SECOND, make_instance


def main(url: str, instants: int, share: float) -> None:
    """Claim every instant of every job, one transaction each, and print what was won, or how often in vain.

    What is planned is read in a transaction of its own, as a daemon knows it from before. All begin with the
    same plan, each at another `share` of it (0…1), and none goes on before all have made their first claim.
    """
    engine, reading = open_engine(url, writes=True), open_engine(url, writes=False)
    with engine.begin() as connection:
        instance = make_instance(connection)
    end, stale, begun = NOW + instants * SECOND, 0, False
    while left := planned(reading, end):
        first = int(share * len(left))
        if not begun:
            meet("has planned")
        for state in (*left[first:], *left[:first]):
            with engine.begin() as connection:
                claimed = claims.claim(connection, [next_of(state)], instance_id=instance, now=NOW)
                for run in claimed.ours:
                    # It ends in the same transaction, so that no other process finds the job at work.
                    runs.cancel_queued(connection, run.id, Reason.OPERATOR, now=NOW)
            if not begun:
                meet("has begun")
                begun = True
            stale += len(claimed.stale)
            for run in claimed.ours:
                print(run.id, flush=True)
            if claimed.ours:
                time.sleep(0.001)  # who waits for SQLite sleeps: without a pause the first to come wins most
    print(f"stale {stale}", flush=True)
    engine.dispose()
    reading.dispose()


def planned(reading: Engine, end: datetime) -> list[JobState]:
    """Return the jobs that have instants left before an end, by name."""
    with reading.begin() as connection:
        states = job_verbs.states(connection).values()
    return sorted((each for each in states if each.decided_until < end), key=lambda each: each.name)


def meet(word: str) -> None:
    """Say how far this process has come, and wait until all have come so far."""
    print(word, flush=True)
    sys.stdin.readline()


def next_of(state: JobState) -> JobClaim:
    """Return the claim of a job's next second."""
    due = state.decided_until + SECOND
    new = NewRun(state.name, due, Trigger.SCHEDULE)
    return JobClaim(state.name, state.decided_until, state.period_id, due, (new,))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
