"""The letter of the specification, as far as S17 needs it: its tables, and what one call may do."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator

from support.attribution.accounts import Holder
from support.attribution.record import Asked, Heard

Row = sqlite3.Row

# What a mark of each class closes; a class that is not named closes nothing.
SCOPES = {
    "auth": "credential",
    "auth_dead": "credential",
    "auth_unavailable": "credential",
    "permission": "credential_model",
    "rate_limit": "group_model",
    "rate_limit_upstream": "endpoint_model",
    "quota_window": "group",
    "quota_billing": "group",
    "overloaded": "endpoint_model",
    "server_error": "endpoint",
    "timeout": "endpoint",
    "connection": "endpoint",
    "invalid_response": "endpoint",
    "model_not_found": "credential_model",
    "entitlement": "credential_model",
    "unknown": "credential_model",
}
COLUMNS = {
    "credential": {"credential"},
    "credential_model": {"credential", "model"},
    "group": {"quota_group"},
    "group_model": {"quota_group", "model"},
    "endpoint": {"base_url"},
    "endpoint_model": {"base_url", "model"},
}
AFTER_THREE = ("server_error", "timeout", "connection", "invalid_response")
# How many more requests may follow one that failed so, with the same credential, at the same target.
AGAIN = {
    "rate_limit": 1,
    "overloaded": 2,
    "server_error": 2,
    "timeout": 1,
    "connection": 1,
    "invalid_response": 1,
    "unknown": 1,
    "context_overflow": 1,
    "payload_too_large": 1,
}
OF_A_SECRET = ("auth", "auth_dead")  # a login is refreshed once in between
TOO_LONG = ("context_overflow", "payload_too_large")
MOST_REQUESTS, MOST_TARGETS = 12, 5
UNSENT_RULES = ("*/unanswerable", "drill")


def wrong_end(row: Row, asked: Asked) -> Iterator[str]:
    """The row was settled with the answer to its own request; who was not told the answer has none."""
    ended = "succeeded" if asked.said is not None else "failed"
    if asked.refresh_token is None and row["outcome"] != ended:
        yield f"attempt {row['id']} is written as {row['outcome']}, but {ended}"
    if row["http_status"] != asked.status:
        yield f"attempt {row['id']} was answered {asked.status}, written {row['http_status']}"
    if asked.status is not None and row["request_id"] != f"r{asked.number}":
        yield f"attempt {row['id']} has the answer {row['request_id']}, not r{asked.number}"
    if asked.expected is not None and row["error_class"] != asked.expected:
        yield f"attempt {row['id']} is {row['error_class']}; the answer is recorded as {asked.expected}"


def stays_of(calls: Iterable[Heard]) -> dict[tuple[int, int], list[Asked]]:
    """Return the requests of each call at each target; a refresh belongs to the target asked before it."""
    stays: dict[tuple[int, int], list[Asked]] = defaultdict(list)
    for heard in calls:
        at = heard.call.first
        for asked in heard.requests:
            at = asked.attempt.target_index if asked.attempt is not None else at
            stays[heard.number, at].append(asked)
    return stays


def budget(heard: Heard) -> Iterator[str]:
    """At most 12 requests to 5 targets, refreshes counted, and never back behind a target."""
    indexes = [asked.attempt.target_index for asked in heard.requests if asked.attempt is not None]
    what = f"call {heard.number} of run {heard.call.run_id}"
    if not heard.ended:
        yield f"{what} has not ended"
    if len(heard.requests) > MOST_REQUESTS:
        yield f"{what} made {len(heard.requests)} requests"
    if indexes != sorted(indexes):
        yield f"{what} went back: {indexes}"
    first = heard.call.first
    if indexes and (indexes[0] < first or len(set(indexes)) > MOST_TARGETS):
        yield f"{what} asked targets {indexes}, beginning with {first}"


def allowed(error_class: str, holder: Holder, asked: Asked) -> int:
    """Return how many failures of a class a credential may have at one target before it is refused."""
    if error_class in OF_A_SECRET:
        return 1 if holder.login else 0
    if error_class == "rate_limit" and not asked.short_hint:
        return 0
    if error_class == "timeout" and not asked.heard.call.repeat_safe:
        return 0
    return AGAIN.get(error_class, 0)
