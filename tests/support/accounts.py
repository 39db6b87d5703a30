"""What became of every instant of a job, read from the database file, and what its provider was asked."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from jobs.providers.loopback_replies import Endpoint
from jobs.providers.loopback_thread import ThreadedLoopback
from support.workplace import Workplace, eventually

PROMPT = "{{ job }} at {{ scheduled_for.timestamp() | int }}"
_LINES = """
SELECT COALESCE(span_first, scheduled_for) AS first, scheduled_for AS last, span_count AS count,
    state, reason, trigger
FROM runs WHERE job = ? AND trigger IN ('schedule', 'catch_up') ORDER BY scheduled_for
"""


@dataclass(frozen=True)
class Line:
    """A row of the ledger: `count` instants from `first` to `last`, and what became of them."""

    first: datetime
    last: datetime
    count: int
    state: str
    reason: str | None
    trigger: str


def lines(workplace: Workplace, job: str) -> list[Line]:
    """Return a job's rows that its schedule brought about, in order of their instants."""
    return [
        Line(
            _moment(row["first"]),
            _moment(row["last"]),
            row["count"],
            row["state"],
            row["reason"],
            row["trigger"],
        )
        for row in workplace.rows(_LINES, job)
    ]


def each_has_one(workplace: Workplace, job: str, every: timedelta) -> list[Line]:
    """Return a job's rows; from the first instant to the last each must have one row, and none two."""
    found = lines(workplace, job)
    assert found, f"{job} has no rows"
    for line in found:
        assert line.last - line.first == (line.count - 1) * every, (job, line)
    for before, after in pairwise(found):
        assert after.first - before.last == every, (job, before, after)
    return found


def started_since(workplace: Workplace, job: str, moment: datetime) -> list[Line]:
    """Wait until a run of an instant later than this has succeeded; return those that have."""

    def found() -> list[Line] | None:
        return [
            line for line in lines(workplace, job) if line.last > moment and line.state == "succeeded"
        ] or None

    return eventually(found)


def asked_once_each(provider: ThreadedLoopback, workplace: Workplace) -> int:
    """Return how many requests came; each names its job and instant (`PROMPT`), none twice, all known."""
    asked = [received.prompt for received in provider.received(Endpoint.CHAT)]
    assert len(asked) == len(set(asked)), "an instant was asked for twice"
    begun = workplace.rows("SELECT job, scheduled_for FROM runs WHERE started_at IS NOT NULL")
    known = {f"{row['job']} at {int(_moment(row['scheduled_for']).timestamp())}" for row in begun}
    assert set(asked) <= known, set(asked) - known
    return len(asked)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
