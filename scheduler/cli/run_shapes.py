"""The `--json` shapes of runs, attempts and deliveries, made of rows of the ledger."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from scheduler.cli.words import instant

Row = Mapping[str, Any]

_ATTEMPT = (
    "id",
    "try",
    "ordinal",
    "purpose",
    "target_index",
    "provider",
    "model",
    "base_url",
    "credential",
    "outcome",
    "error_class",
    "http_status",
    "code",
    "message",
    "retry_after",
    "waited",
    "wait_reason",
    "recovery",
    "request_id",
)
_DELIVERY = ("id", "run_id", "alert_id", "notice", "target", "state", "attempts", "last_error")
_DELIVERY_TIMES = ("sending_until", "next_attempt_at", "created_at", "finished_at")
_RUN = MappingProxyType({"requested": ("provider", "model"), "served": ("provider", "model", "credential")})


def run_shape(row: Row, *, deliveries: Sequence[Row]) -> dict[str, Any]:
    """Return a run as `run list --json` prints it."""
    return {
        "id": row["id"],
        "job": row["job"],
        "scheduled_for": instant(row["scheduled_for"]),
        "trigger": row["trigger"],
        "parent_id": row["parent_id"],
        "state": row["state"],
        "reason": row["reason"],
        "requested": _target(row, "requested"),
        "served": _target(row, "served"),
        "fallback": row["fallback"],
        "fallback_reason": row["fallback_reason"],
        "error": _error(row),
        "output": row["output"],
        "truncated": row["truncated"],
        "compressed": _compressed(row),
        "title": row["title"],
        "tries": row["tries"],
        "created_at": instant(row["created_at"]),
        "started_at": instant(row["started_at"]),
        "finished_at": instant(row["finished_at"]),
        "deliveries": [delivery_shape(each) for each in deliveries],
        "usage": _usage(row),
    }


def whole_run_shape(row: Row, *, attempts: Sequence[Row], deliveries: Sequence[Row]) -> dict[str, Any]:
    """Return a run as `run show --json` prints it."""
    shape = run_shape(row, deliveries=deliveries)
    return {**shape, "attempts": [attempt_shape(each) for each in attempts]}


def attempt_shape(row: Row) -> dict[str, Any]:
    """Return an attempt; durations in seconds."""
    return {
        **{name: row[name] for name in _ATTEMPT},
        "started_at": instant(row["started_at"]),
        "latency": row["latency"],
        "usage": _usage(row),
    }


def delivery_shape(row: Row) -> dict[str, Any]:
    """Return a delivery."""
    return {
        **{name: row[name] for name in _DELIVERY},
        **{name: instant(row[name]) for name in _DELIVERY_TIMES},
    }


def _target(row: Row, role: str) -> dict[str, Any] | None:
    if row[f"{role}_provider"] is None:
        return None
    return {name: row[f"{role}_{name}"] for name in _RUN[role]}


def _error(row: Row) -> dict[str, Any] | None:
    if row["error_class"] is None and row["error_message"] is None:
        return None
    return {"class": row["error_class"], "message": row["error_message"]}


def _compressed(row: Row) -> dict[str, Any] | None:
    if row["compressed_from"] is None:
        return None
    return {"from": row["compressed_from"], "to": row["compressed_to"]}


def _usage(row: Row) -> dict[str, Any]:
    return {"input_tokens": row["input_tokens"], "output_tokens": row["output_tokens"]}
