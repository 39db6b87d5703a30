"""Jobs that a test's ledger has seen, and claims of their instants, made as the daemon makes them."""

from sqlalchemy import Connection

from jobs.run import Bounds
from jobs.store import claims
from jobs.store import jobs as job_verbs
from jobs.store.claims import Claimed, JobClaim, NewRun
from support.ledger import HOUR, NOW

HOURLY = '{"lines":["0 * * * *"],"timezone":"Etc/UTC"}'
DAILY = '{"lines":["@daily"],"timezone":"Etc/UTC"}'


def claim_of(connection: Connection, *new: NewRun, bounds: Bounds = Bounds()) -> list[JobClaim]:
    """Return claims of these instants, planned from what the ledger says now; unseen jobs are seen first."""
    names = list(dict.fromkeys(run.job for run in new))
    for name in names:
        job_verbs.see_one(connection, name, HOURLY, now=NOW - HOUR)
    states = job_verbs.states(connection, names)
    return [
        JobClaim(
            name,
            states[name].decided_until,
            states[name].period_id,
            max(states[name].decided_until, *(run.scheduled_for for run in new if run.job == name)),
            tuple(run for run in new if run.job == name),
            bounds,
        )
        for name in names
    ]


def claim(connection: Connection, instance: int, *new: NewRun, bounds: Bounds = Bounds()) -> Claimed:
    """Plan and claim these instants."""
    return claims.claim(connection, claim_of(connection, *new, bounds=bounds), instance_id=instance, now=NOW)
