"""What a delivery says, read from the ledger when it is sent: a run's end, or a notice of an alert."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, tzinfo
from typing import Any

from sqlalchemy import Connection

from jobs.alert import AlertKind, Notice
from jobs.attempt import AttemptOutcome, Purpose
from jobs.delivery.message import Message, NoticeRow, RunRow, message_of_alert, message_of_run
from jobs.run import RunState
from jobs.store import ledger
from jobs.store.deliveries import ClaimedDelivery

_OF_A_RUN = {each.name for each in fields(RunRow)} - {"state", "scheduled_for", "asked"}
_OF_A_NOTICE = ("subject", "body", "job", "provider", "credential", "run_id")


def content_of(
    connection: Connection, claimed: ClaimedDelivery, zones: Mapping[str, tzinfo]
) -> Message | None:
    """Return the message of a delivery; None where its run or alert has been removed meanwhile.

    `zones` are those of the jobs, by name; the times of any other are told in UTC.
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
        scheduled_for=row["scheduled_for"].astimezone(zones.get(row["job"], UTC)),
        asked=_asked(ledger.attempts_of(connection, claimed.run_id), row["tries"]),
    )
    return message_of_run(run, claimed.key)


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
