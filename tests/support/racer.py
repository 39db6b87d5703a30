"""A process that claims instants of one database file as fast as it can; see test_claims."""

import sys
import time

from jobs.run import Trigger
from jobs.store import runs
from jobs.store.engine import open_engine
from jobs.store.runs import NewRun
from support.ledger import NOW, SECOND, make_instance


def main(url: str, jobs: int, instants: int) -> None:
    """Claim every instant of every job, one transaction each, and print the ids that were won."""
    engine = open_engine(url, writes=True)
    with engine.begin() as connection:
        instance = make_instance(connection)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(instants):
        due = NOW + number * SECOND
        for job in range(jobs):
            new = [NewRun(f"job-{job}", due, Trigger.SCHEDULE)]
            with engine.begin() as connection:
                won = runs.claim(
                    connection, new, cursors=[(f"job-{job}", due)], instance_id=instance, now=due
                ).ours
                for run in won:
                    # It ends in the same transaction, so that no other process finds the job at work.
                    runs.cancel_queued(connection, run.id, runs.Reason.OPERATOR, now=due)
            for run in won:
                print(run.id, flush=True)
            if won:
                time.sleep(0.001)  # who waits for SQLite sleeps: without a pause the first to come wins all
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
