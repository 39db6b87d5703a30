"""What a delivery says, read from the ledger when it is sent: a run's end, or a notice of an alert."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection

from jobs.alert import AlertKind, Notice
from jobs.attempt import AttemptOutcome, Purpose
from jobs.delivery.message import Message, NoticeRow, RunRow, message_of_alert, message_of_run
from jobs.run import RunState
from jobs.store import ledger, replay
from jobs.store.deliveries import ClaimedDelivery

_OF_A_RUN = {each.name for each in fields(RunRow)} - {"state", "scheduled_for", "asked"}
_OF_A_NOTICE = ("subject", "body", "job", "provider", "credential", "run_id")


def content_of(
    connection: Connection, claimed: ClaimedDelivery, zones: Mapping[str, tzinfo], *, zone: tzinfo = UTC
) -> Message | None:
    """Return the message of a delivery; None where its run or alert has been removed meanwhile.

    `zones` are those of the jobs, by name. The times of a job that is gone are told in the zone of its last
    timetable, or else in `zone`, so that a file that is named by a day keeps its name.
    """
    if claimed.run_id is None:
        notice = ledger.notice_of(connection, claimed.id)
        return message_of_alert(_notice(notice), claimed.key) if notice else None
    row = ledger.run(connection, claimed.run_id)
    if row is None:
        return None
    run = RunRow(
        **{name: row[name] for name in _OF_A_RUN},
        state=RunState(row["state"]),
        scheduled_for=row["scheduled_for"].astimezone(
            zones.get(row["job"]) or _last_zone(connection, row["job"]) or zone
        ),
        asked=_asked(ledger.attempts_of(connection, claimed.run_id), row["tries"]),
    )
    return message_of_run(run, claimed.key)


def _last_zone(connection: Connection, job: str) -> tzinfo | None:
    """Return the zone of a job's newest timetable; None where it had none, or one that is not known here."""
    periods = reversed(replay.periods_of(connection, job))  # the newest of a job that is gone has none
    timetable = next((each.timetable for each in periods if each.timetable is not None), None)
    if timetable is None:
        return None
    try:
        return ZoneInfo(json.loads(timetable)["timezone"])
    except (ZoneInfoNotFoundError, ValueError, KeyError):
        return None


def _asked(attempts: Sequence[Mapping[str, Any]], tries: int) -> tuple[str, ...]:
    """Return who was asked in a run's last try, and what came of it."""
    return tuple(
        f"{row['provider']}/{row['model']}: {_what_came(row)}"
        for row in attempts
        if row["try"] == tries and row["purpose"] == Purpose.MAIN
    )


def _what_came(attempt: Mapping[str, Any]) -> str:
    if attempt["outcome"] == AttemptOutcome.SUCCEEDED:
        return "answered"
    return attempt["error_class"] or "its answer was lost"


def _notice(row: Mapping[str, Any]) -> NoticeRow:
    return NoticeRow(
        alert_id=row["id"],
        notice=Notice(row["notice"]),
        kind=AlertKind(row["kind"]),
        opened_at=row["opened_at"],
        told_at=row["written_at"],
        **{name: row[name] for name in _OF_A_NOTICE},
    )
