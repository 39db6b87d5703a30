"""The books of the outbox: its rows are matched with the ends of runs, with alerts, and with what arrived."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from support.crash.receiver import INBOX, Heard
from support.crash.world import DELIVERED, TOLD

WAITING = (
    "SELECT count(*) FROM deliveries WHERE state = 'pending' AND (failures = 0 OR sending_by IS NOT NULL"
    " OR next_attempt_at <= strftime('%Y-%m-%d %H:%M:%f000', 'now'))"
)
"""Counts what is to be sent before the end: not what was refused and waits for its time."""

MOST_APART = 5  # notices alike of one moment; more are told as one
_AT_ONCE = timedelta(seconds=10)  # what may lie between a daemon's look at the clock and what it writes
_ENDED = """
SELECT id, state, silent, output FROM runs
WHERE job = ? AND finished_at IS NOT NULL AND trigger NOT IN ('drill', 'ask') ORDER BY id
"""
_ROWS = """
SELECT deliveries.*, runs.output AS answer FROM deliveries
LEFT JOIN runs ON runs.id = deliveries.run_id AND runs.state = 'succeeded' ORDER BY deliveries.id
"""
_LOST = """
SELECT * FROM deliveries WHERE state = 'pending' AND (failures = 0 OR sending_by IS NOT NULL
OR next_attempt_at <= (SELECT started_at FROM instances WHERE kind = 'daemon' ORDER BY id DESC LIMIT 1))
"""
_FAILURES = ("failed", "timed_out", "abandoned")
Rows = Sequence[sqlite3.Row]


def judge_outbox(connection: sqlite3.Connection, heard: Sequence[Heard], *, settled: bool) -> list[str]:
    """Return everything that must not be; when all is `settled` nothing waits that was not refused."""
    rows = connection.execute(_ROWS).fetchall()
    return [
        *_against_runs(connection, rows),
        *_against_what_was_heard(rows, heard),
        *_against_keys(heard),
        *_against_silence(rows, heard),
        *_against_repetition(connection),
        *_against_alerts(connection, rows),
        *(_still_waiting(connection) if settled else ()),
    ]


def heard_again(heard: Sequence[Heard]) -> int:
    """Return how often something was taken that had been taken before."""
    taken = Counter(each.key for each in heard if each.taken and each.key)
    return taken.total() - len(taken)


def taken_too_often(heard: Sequence[Heard], ends: Sequence[tuple[float, float]]) -> list[str]:
    """Return which webhooks were taken again though no process can have ended meanwhile.

    `ends` are when some have, each between two moments.
    """
    times: defaultdict[str, list[float]] = defaultdict(list)
    for each in heard:
        if each.key is not None and each.at is not None and each.taken:
            times[each.key].append(each.at)
    return [
        f"the key {key} was taken twice within {second - first:.1f} s, and nobody had died"
        for key, own in times.items()
        for first, second in pairwise(sorted(own))
        if not any(begin <= second and first <= end for begin, end in ends)
    ]


def _against_runs(connection: sqlite3.Connection, rows: Rows) -> Iterator[str]:
    """Every end that somebody wants has its one row for each target, and no other end has any."""
    found = Counter((row["run_id"], row["target"]) for row in rows if row["run_id"] is not None)
    for job, wishes in DELIVERED.items():
        before: str | None = None
        for run in connection.execute(_ENDED, (job,)).fetchall():
            for target, on in wishes.items():
                there, wanted = found.pop((run["id"], target), 0), int(_is_wanted(on, run, before))
                if there != wanted:
                    yield f"run {run['id']} of {job} is {run['state']}: {there} rows for {target}"
            if run["state"] == "succeeded" and not run["silent"]:
                before = run["output"]
    yield from (f"run {run_id} has a row for {target} that nobody wants" for run_id, target in found)


def _is_wanted(on: str, run: sqlite3.Row, before: str | None) -> bool:
    good, bad = run["state"] == "succeeded" and not run["silent"], run["state"] in _FAILURES
    return {
        "success": good,
        "failure": bad,
        "always": good or bad,
        "changed": good and run["output"] != before,
    }[on]


def _against_what_was_heard(rows: Rows, heard: Sequence[Heard]) -> Iterator[str]:
    """What has arrived stands in the outbox, under its key, and says what its run has answered."""
    by_key = {row["idempotency_key"]: row for row in rows}
    by_run = {(row["target"], row["run_id"]): row for row in rows if row["run_id"] is not None}
    for each in heard:
        if each.key is None and each.run_id is None:
            continue  # the file of an alert has the words of its newest notice
        row = by_key.get(each.key) if each.key else by_run.get((each.target, each.run_id))
        if row is None or _matter(each) != (row["target"], row["run_id"], row["alert_id"], row["notice"]):
            yield f"{_matter(each)} was heard, and the outbox has no such row with the key {each.key}"
        elif None not in (row["answer"], each.text) and row["answer"] != each.text:
            yield f"delivery {row['id']} has said {each.text!r}, its run {row['answer']!r}"


def _matter(each: Heard) -> tuple[str, int | None, int | None, str | None]:
    return each.target, each.run_id, each.alert_id, each.notice


def _against_keys(heard: Sequence[Heard]) -> Iterator[str]:
    """What arrives twice has the same key."""
    keys: defaultdict[tuple[object, ...], set[str]] = defaultdict(set)
    for each in heard:
        if each.key is not None:
            keys[_matter(each)].add(each.key)
    yield from (f"{matter} was heard under {len(own)} keys" for matter, own in keys.items() if len(own) > 1)


def _against_silence(rows: Rows, heard: Sequence[Heard]) -> Iterator[str]:
    """What is delivered has arrived; no row was heard more often than it was tried, or failed unrefused."""
    came = Counter(each.key for each in heard)
    taken = {each.key for each in heard if each.taken}
    refused = Counter(each.key for each in heard if not each.taken)
    files = {(each.run_id, each.alert_id) for each in heard if each.target == INBOX}
    for row in rows:
        name, key = f"delivery {row['id']} to {row['target']}", row["idempotency_key"]
        there = (row["run_id"], row["alert_id"]) in files if row["target"] == INBOX else key in taken
        if row["state"] == "delivered" and not there:
            yield f"{name} is delivered, and nobody has heard of it"
        if row["state"] == "failed":
            yield f"{name} has failed for good: {row['last_error']}"
        if came[key] > row["attempts"]:
            yield f"{name} has {row['attempts']} attempts, and was heard {came[key]} times"
        if row["failures"] > refused[key]:
            yield f"{name} has {row['failures']} failures, and was refused {refused[key]} times"


def _against_repetition(connection: sqlite3.Connection) -> Iterator[str]:
    """Of one key one alert is open at a time, and what does not last is told of once."""
    last: dict[str, sqlite3.Row] = {}
    for row in connection.execute("SELECT * FROM alerts ORDER BY key, id"):
        before = last.get(row["key"])
        last[row["key"]] = row
        if before is None:
            continue
        over = (
            before["resolved_at"] and _moment(before["resolved_at"]) <= _moment(row["opened_at"]) + _AT_ONCE
        )
        if not over:
            yield f"{row['key']}: alert {row['id']} was opened while {before['id']} was open"
        if not _lasts(row):
            yield f"{row['key']} is told of again by alert {row['id']}"


def _lasts(alert: sqlite3.Row) -> bool:
    return alert["kind"] not in ("run_abandoned", "attribution_refused")


def _against_alerts(connection: sqlite3.Connection, rows: Rows) -> Iterator[str]:
    """Each notice is one row for each target; many alike of one moment are one notice."""
    found = Counter((row["alert_id"], row["notice"], row["target"]) for row in rows if row["alert_id"])
    told: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for row in connection.execute("SELECT * FROM alerts ORDER BY id"):
        told[row["kind"], "opened", row["opened_at"]].append(row["id"])
        if _lasts(row) and row["told_at"] == row["resolved_at"]:
            told[row["kind"], "resolved", row["resolved_at"]].append(row["id"])
    for (kind, notice, _), alerts in told.items():
        for target in TOLD:
            there = [found.pop((alert, notice, target), 0) for alert in alerts]
            wanted = [1] * len(alerts) if len(alerts) <= MOST_APART else [1, *[0] * (len(alerts) - 1)]
            if sorted(there, reverse=True) != wanted:
                yield f"alerts {alerts} ({kind}, {notice}) have {there} rows for {target}"
    yield from (f"alert {alert} has a row {notice} for {to} of nobody" for alert, notice, to in found)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _still_waiting(connection: sqlite3.Connection) -> Iterator[str]:
    for row in connection.execute(_LOST):
        yield f"delivery {row['id']} to {row['target']} waits for ever, after {row['attempts']} attempts"
