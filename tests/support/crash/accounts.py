"""The books: the ledger is matched with the provider's own list of requests, and with when jobs were due."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime

from support.crash.provider import Said
from support.crash.world import RERUN, due_of

_ATTEMPTS = """
SELECT attempts.*, runs.job, runs.scheduled_for, runs.state, runs.output, runs.finished_at
FROM attempts JOIN runs ON runs.id = attempts.run_id ORDER BY attempts.id
"""
_SCHEDULED = """
SELECT runs.* FROM runs WHERE trigger IN ('schedule', 'catch_up') AND job = ? ORDER BY scheduled_for
"""
_SENT = ("sent", "unknown", "succeeded", "failed")
_UNANSWERED = ("sent", "unknown")
Attempts = Sequence[sqlite3.Row]


def judge(connection: sqlite3.Connection, said: Sequence[Said], *, settled: bool) -> list[str]:
    """Return everything that must not be; when all is `settled` nothing may be open any more."""
    attempts = connection.execute(_ATTEMPTS).fetchall()
    return [
        *_against_the_list(attempts, said),
        *_against_answers(attempts, said),
        *_against_repetition(attempts),
        *_against_the_clock(connection),
        *(_still_open(connection) if settled else ()),
    ]


def _against_the_list(attempts: Attempts, said: Sequence[Said]) -> Iterator[str]:
    """Every request has its one attempt, and every attempt at most one request.

    What was answered is matched by the provider's name for it. What was not (in the ledger) is counted by
    job, instant and provider: each such request needs an attempt whose answer is not known.
    """
    by_id = {each.request_id: each for each in said}
    named = Counter(row["request_id"] for row in attempts if row["request_id"])
    yield from (f"{number} attempts claim the request {name}" for name, number in named.items() if number > 1)
    open_ends: Counter[tuple[str, str, str]] = Counter()
    for row in attempts:
        if row["request_id"]:
            asked = by_id.get(row["request_id"])
            if asked is None or asked.key != _key(row):
                yield f"attempt {row['id']} names a request of somebody else: {row['request_id']}"
        elif row["outcome"] in _UNANSWERED:
            open_ends[_key(row)] += 1
        elif row["outcome"] != "passed_over":
            yield f"attempt {row['id']} is {row['outcome']}, and the provider knows nothing of it"
    unanswered = Counter(each.key for each in said if each.request_id not in named)
    for key, number in unanswered.items():
        if number > open_ends[key]:
            yield f"{number} requests for {key} have {open_ends[key]} attempts"


def _key(row: sqlite3.Row) -> tuple[str, str, str]:
    return row["job"], row["scheduled_for"][:19].replace(" ", "T"), row["provider"]


def _against_answers(attempts: Attempts, said: Sequence[Said]) -> Iterator[str]:
    """What the ledger says of an answer is what the provider said; none that was committed is thrown away."""
    by_id = {each.request_id: each for each in said}
    for row in attempts:
        asked = by_id.get(row["request_id"] or "")
        if asked is None:
            continue
        if (row["outcome"] == "succeeded") != (asked.text is not None):
            yield f"attempt {row['id']} is {row['outcome']}, the provider said {asked.text!r}"
        if row["outcome"] == "succeeded" and row["finished_at"] and row["output"] != asked.text:
            yield (
                f"the answer of attempt {row['id']} was thrown away: "
                f"its run {row['run_id']} of {row['job']} is {row['state']}, with {row['output']!r}"
            )


def _against_repetition(attempts: Attempts) -> Iterator[str]:
    """A run is paid for once; what may have been paid is asked again only where the job wants that."""
    runs: defaultdict[int, list[sqlite3.Row]] = defaultdict(list)
    for row in attempts:
        runs[row["run_id"]].append(row)
    for number, made in runs.items():
        good = [row for row in made if row["outcome"] == "succeeded"]
        if len(good) > 1:
            yield f"run {number} of {made[0]['job']} was answered and paid {len(good)} times"
        last_sent = [row for row in made if row["outcome"] in _SENT][-1:]
        if made[0]["job"] not in RERUN and any(
            row["outcome"] in _UNANSWERED and row not in last_sent for row in made
        ):
            yield f"run {number} of {made[0]['job']} asked again although it may have been paid"


def _against_the_clock(connection: sqlite3.Connection) -> Iterator[str]:
    """The rows of a steady job take its instants one after the other, without a gap and none twice."""
    for job, seen, until in _decided(connection):
        rows = connection.execute(_SCHEDULED, (job,)).fetchall()
        due = due_of(job, seen, until)
        yield from _walk(job, rows, due) if due is not None else ()


def _decided(connection: sqlite3.Connection) -> Iterator[tuple[str, datetime, datetime]]:
    """Yield every job, its first sight, and up to when its first timetable stood and was decided."""
    for row in connection.execute(
        "SELECT name, first_seen_at, cursor, until FROM jobs JOIN schedule_periods AS first ON first.id ="
        " (SELECT min(id) FROM schedule_periods WHERE job = name)"
    ):
        until = min(_moment(row["cursor"]), _moment(row["until"] or row["cursor"]))
        yield row["name"], _moment(row["first_seen_at"]), until


def _walk(job: str, rows: Sequence[sqlite3.Row], due: Sequence[datetime]) -> Iterator[str]:
    taken = 0
    for row in rows:
        first, last = _moment(row["span_first"] or row["scheduled_for"]), _moment(row["scheduled_for"])
        wanted = due[taken : taken + row["span_count"]]
        if not wanted or (wanted[0], wanted[-1], len(wanted)) != (first, last, row["span_count"]):
            spans = f"{first} to {last}, {row['span_count']}"
            yield f"{job}: row {row['id']} ({spans}) stands where {wanted[:1]} was due"
            return
        taken += row["span_count"]
    if taken < len(due):
        yield f"{job}: {len(due) - taken} instants from {due[taken]} on have no row"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _still_open(connection: sqlite3.Connection) -> Iterator[str]:
    for row in connection.execute("SELECT id, job, state FROM runs WHERE finished_at IS NULL"):
        yield f"run {row['id']} of {row['job']} is {row['state']} for ever"
    for row in connection.execute("SELECT id FROM attempts WHERE outcome = 'sent'"):
        yield f"attempt {row['id']} is sent for ever"


def instants(connection: sqlite3.Connection) -> int:
    """Return how many scheduled instants the ledger accounts for."""
    query = "SELECT coalesce(sum(span_count), 0) FROM runs WHERE trigger IN ('schedule', 'catch_up')"
    return int(connection.execute(query).fetchone()[0])
