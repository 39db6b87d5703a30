"""How `auth list` and `auth why` are printed: as JSON, and in words."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jobs.mark import Scope, Status
from scheduler.cli import words
from scheduler.cli.run_shapes import attempt_shape
from scheduler.cli.standing import Standing
from scheduler.cli.tables import Block, Table
from scheduler.cli.words import instant

Attempts = Mapping[int, Mapping[str, Any]]

_WHY_TITLES = (
    "CLOSED",
    "STATUS",
    "ATTEMPT",
    "RUN",
    "WHEN",
    "TARGET",
    "CREDENTIAL",
    "HTTP",
    "CLASS",
    "CODE",
    "MESSAGE",
)


def standing_shape(row: Standing) -> dict[str, Any]:
    """Return a row of `auth list --json`."""
    mark = row.mark
    return {
        "provider": row.provider,
        "label": row.label,
        "kind": row.kind,
        "source": row.source,
        "fingerprint": row.fingerprint,
        "status": row.status,
        "reason": row.reason,
        "code": mark.code if mark else None,
        "model": mark.model if mark else None,
        "until": instant(row.until),
        "until_source": mark.until_source if mark and row.until else None,
        "attempt_id": mark.attempt_id if mark else None,
        "last_used_at": instant(row.last_used_at),
        "expires_at": instant(row.expires_at),
        "scope": row.scope,
    }


def standing_line(row: Standing, *, now: datetime) -> tuple[object, ...]:
    """Return a row of `auth list` for people."""
    return (
        row.provider,
        row.label,
        closed_thing(row),
        row.source,
        status_words(row, now=now),
        words.ago(row.last_used_at, now=now),
        words.ago(row.expires_at, now=now),
    )


def closed_thing(row: Standing) -> str:
    """Say what a row is about: the credential and its quota group, or what a mark closes."""
    thing = row.scope.value.partition("_")[0]
    if row.scope is Scope.CREDENTIAL:
        return f"{thing}, group {row.group}" if row.group else thing
    return f"{thing}, model {row.mark.model}" if row.mark and row.mark.model else thing


def status_words(row: Standing, *, now: datetime) -> str:
    """Say how something stands: `dead: invalid_grant, attempt 3`."""
    match row.status, row.mark:
        case Status.OK, _:
            return "ok"
        case Status.UNREADABLE, _:
            return f"unreadable: {row.why}"
        case status, None:
            return str(status)
        case _, mark:
            return words.closing(mark, row.until, kind=row.kind, now=now)


def why_shape(row: Standing, attempts: Attempts) -> dict[str, Any]:
    """Return a row of `auth why --json`: the mark, and the attempt that earned it."""
    mark = row.mark
    assert mark is not None
    attempt = attempts[mark.attempt_id]
    return {
        **{key: value for key, value in standing_shape(row).items() if key in _OF_MARK},
        "quota_group": mark.quota_group,
        "base_url": mark.base_url,
        "step": mark.step,
        "made_at": instant(mark.made_at),
        "run_id": attempt["run_id"],
        "attempt": attempt_shape(attempt),
    }


_OF_MARK = (
    "provider",
    "label",
    "scope",
    "status",
    "reason",
    "code",
    "model",
    "until",
    "until_source",
    "attempt_id",
)


def why_blocks(rows: Sequence[Standing], attempts: Attempts, provider: str, *, now: datetime) -> list[Block]:
    """Return the marks and their attempts for people."""
    lines = [_why_line(row, attempts, now) for row in rows]
    return [Table(_WHY_TITLES, lines, none=f"nothing stands against {provider}")]


def _why_line(row: Standing, attempts: Attempts, now: datetime) -> tuple[object, ...]:
    assert row.mark is not None
    attempt = attempts[row.mark.attempt_id]
    closed = " ".join(part for part in (closed_thing(row), row.label or row.source) if part)
    return (
        closed,
        status_words(row, now=now),
        attempt["id"],
        attempt["run_id"],
        words.moment(attempt["started_at"]),
        f"{attempt['provider']}/{attempt['model']}",
        attempt["credential"],
        attempt["http_status"],
        attempt["error_class"],
        attempt["code"],
        attempt["message"],
    )
