"""What jobs have answered before: the newest output of each, as later prompts may use it."""

from collections.abc import Iterable

from sqlalchemy import Connection, select

from jobs.run import RunState, Trigger
from jobs.store.tables import runs


def newest_outputs(connection: Connection, jobs: Iterable[str]) -> dict[str, str]:
    """Return the newest succeeded output of each job, empty where there is none. A drill's does not count."""
    return {job: _newest(connection, job) for job in jobs}


def _newest(connection: Connection, job: str) -> str:
    query = (
        select(runs.c.output)
        .where(runs.c.job == job, runs.c.state == RunState.SUCCEEDED, runs.c.trigger != Trigger.DRILL)
        .order_by(runs.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none() or ""
