"""The tables of spec/errors.md, written out: what each class does and marks, what providers are known to say.

The expectations stand here literally, in the words of the specification; nothing is read from the product.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from jobs.attempt import Step
from jobs.errors import ErrorClass
from jobs.mark import NewMark, Scope
from jobs.providers.recovery import RECOVERY, Situation, Visit, goes_on, next_at_target

RECORDED: Final = Path(__file__).parents[1] / "provider_errors"
NOW: Final = datetime(2026, 9, 4, 8, tzinfo=UTC)
MINUTE, HOUR, DAY = 60, 3600, 86400
LETTERS: Final = {
    "K": Scope.CREDENTIAL,
    "K×M": Scope.CREDENTIAL_MODEL,
    "G": Scope.GROUP,
    "G×M": Scope.GROUP_MODEL,
    "E": Scope.ENDPOINT,
    "E×M": Scope.ENDPOINT_MODEL,
    "–": None,
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of "Classes": actions in order for a login with a short hint, what is marked, and for how long.

    `times` are the default lengths of the first marks in a row, in seconds; None lasts until a login, a new
    secret or a reset. `in_a_row` failures are needed for a mark.
    """

    actions: str
    mark: str
    times: tuple[int | None, ...] = ()
    in_a_row: int = 1


LIMIT: Final = (30, MINUTE, 5 * MINUTE, 5 * MINUTE)
ENDPOINT: Final = (15, 60, 60)
CLASSES: Final[dict[str, Row]] = {
    "config_error": Row("stop", "–"),
    "auth": Row("refresh, next_credential, next_target", "K", (5 * MINUTE, None)),
    "auth_dead": Row("refresh, next_credential, next_target", "K", (None,)),
    "auth_unavailable": Row("next_credential, next_target", "K", (60,)),
    "permission": Row("next_credential, next_target", "K×M", (5 * MINUTE,)),
    "rate_limit": Row("retry, next_credential, next_target", "G×M", LIMIT),
    "rate_limit_upstream": Row("next_target", "E×M", LIMIT),
    "quota_window": Row("next_credential, next_target", "G", (HOUR, HOUR)),
    "quota_billing": Row(
        "next_credential, next_target", "G", (HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 16 * HOUR, DAY, DAY)
    ),
    "overloaded": Row("retry, retry, next_target", "E×M", ENDPOINT),
    "server_error": Row("retry, retry, next_target", "E", ENDPOINT, in_a_row=3),
    "timeout": Row("retry, next_target", "E", ENDPOINT, in_a_row=3),
    "connection": Row("retry, next_target", "E", ENDPOINT, in_a_row=3),
    "invalid_response": Row("retry, next_target", "E", ENDPOINT, in_a_row=3),
    "context_overflow": Row("compress, stop", "–"),
    "payload_too_large": Row("compress, stop", "–"),
    "content_filter": Row("stop", "–"),
    "model_not_found": Row("next_target", "K×M", (HOUR,)),
    "entitlement": Row("next_target", "K×M", (DAY,)),
    "policy_blocked": Row("next_target", "–"),
    "bad_request": Row("next_target", "–"),
    "unknown": Row("retry, next_target", "K×M", (30,)),
}
BELIEVES_A_STATED_TIME: Final = {"rate_limit", "rate_limit_upstream", "quota_window"}
# A job that says repeat_safe and compresses, at a login, with a hint of five seconds.
EVERY_WAY_OUT: Final = Situation(
    label="login",
    quota_group="credential:login",
    left=timedelta(minutes=5),
    requests_left=12,
    can_refresh=True,
    repeat_safe=True,
    may_shrink=True,
    hint=timedelta(seconds=5),
)


def actions(error_class: ErrorClass, *, other_provider: bool = True) -> Iterator[str]:
    """Yield what is done about the same failure on and on, until it is left for good."""
    visit, now = Visit(), EVERY_WAY_OUT
    while (step := next_at_target(error_class, visit, now, jitter=0.5).step) is not Step.NEXT_TARGET:
        yield step
        if step is Step.NEXT_CREDENTIAL:
            break
        if step is Step.COMPRESS:
            now = replace(now, may_shrink=False)
    onward = goes_on(error_class, allowed=frozenset(), other_provider=other_provider, larger_context=False)
    yield Step.NEXT_TARGET if onward else Step.STOP


def lengths(error_class: ErrorClass, count: int) -> tuple[float | None, ...]:
    """Return the lengths of the first `count` marks in a row, in seconds; None for one that no time ends."""
    row = RECOVERY[error_class]
    assert row.scope is not None
    mark = NewMark(row.scope, error_class, row.ladder, lasts_from_step=row.lasts_from_step)
    ends = [mark.until(step, now=NOW) for step in range(1, count + 1)]
    return tuple((end - NOW).total_seconds() if end else None for end in ends)


def test_every_class_stands_in_the_table_and_no_other() -> None:
    """The list is closed."""
    assert set(CLASSES) == set(ErrorClass)


@pytest.mark.parametrize("error_class", ErrorClass)
def test_each_class_has_its_actions_in_order(error_class: ErrorClass) -> None:
    """Column "action, in order"."""
    assert ", ".join(actions(error_class)) == CLASSES[error_class].actions


def test_a_bad_request_goes_to_another_provider_only() -> None:
    """The same provider would say the same."""
    assert list(actions(ErrorClass.BAD_REQUEST, other_provider=False)) == ["stop"]


@pytest.mark.parametrize("error_class", ErrorClass)
def test_each_class_marks_its_scope_for_its_time(error_class: ErrorClass) -> None:
    """Column "mark and default time"."""
    expected, row = CLASSES[error_class], RECOVERY[error_class]

    assert row.scope == LETTERS[expected.mark]
    if row.scope is not None:
        assert lengths(error_class, len(expected.times)) == expected.times
        assert row.marks_after == expected.in_a_row


@pytest.mark.parametrize("error_class", ErrorClass)
def test_a_stated_time_is_believed_where_the_table_says_so(error_class: ErrorClass) -> None:
    """Never for money: a top-up can come at any time."""
    assert RECOVERY[error_class].believes_hint is (error_class in BELIEVES_A_STATED_TIME)


@dataclass(frozen=True, slots=True)
class Cell:
    """What a provider is known to say: a status, words that must stand in the answer, the class it is."""

    column: str
    statuses: tuple[int, ...]
    words: tuple[str, ...]
    classes: tuple[str, ...]

    def __str__(self) -> str:
        statuses, classes = "/".join(map(str, self.statuses)), "/".join(self.classes)
        return f"{self.column}: {statuses} {' '.join(self.words)} → {classes}"

    def is_shown_by(self, case: dict[str, Any]) -> bool:
        """Say whether a recorded answer is one of this cell."""
        said = "\n".join([case["body"], *(f"{k}: {v}" for k, v in case.get("headers", {}).items())]).lower()
        return (
            case["status"] in self.statuses
            and case["expect"]["class"] in self.classes
            and all(word.lower() in said for word in self.words)
        )


def cell(column: str, status: int | tuple[int, ...], *words: str, is_: str | Collection[str]) -> Cell:
    """Return a cell of one status or several, of one class or several that the specification leaves open."""
    statuses = (status,) if isinstance(status, int) else status
    return Cell(column, statuses, words, (is_,) if isinstance(is_, str) else tuple(is_))


RATE, MONEY, AUTH, BUSY, LONG, MODEL, TRAP = (
    "rate limit",
    "money, quota",
    "auth",
    "overload",
    "too long",
    "model missing",
    "traps",
)
REFUSED: Final = ("auth", "permission")
TOO_LONG: Final = ("context_overflow", "payload_too_large")
BROKEN: Final = ("overloaded", "server_error")
PROVIDERS: Final[dict[str, list[Cell]]] = {
    "openai": [
        cell(RATE, 429, "rate_limit_exceeded", is_="rate_limit"),
        cell(RATE, 429, "slow_down", is_="rate_limit"),
        cell(MONEY, 429, '"type": "insufficient_quota"', is_="quota_billing"),
        cell(MONEY, 429, "credit_balance_exhausted", is_="quota_billing"),
        cell(MONEY, 429, "organization_spend_limit_exceeded", is_="quota_billing"),
        cell(MONEY, 429, "project_spend_limit_exceeded", is_="quota_billing"),
        cell(MONEY, 429, "organization_usage_limit_exceeded", is_="quota_billing"),
        cell(AUTH, 401, "invalid_api_key", is_="auth"),
        cell(AUTH, 403, "unsupported_country_region_territory", is_="permission"),
        cell(BUSY, 503, "server_is_overloaded", is_="overloaded"),
        cell(LONG, 400, "context_length_exceeded", is_="context_overflow"),
        cell(LONG, 400, "string_above_max_length", is_="bad_request"),
        cell(MODEL, 404, "model_not_found", is_="model_not_found"),
        cell(TRAP, 429, "insufficient_quota", "rate_limit_exceeded", is_="rate_limit"),
    ],
    "openai-codex": [
        cell(MONEY, 429, "usage_limit_reached", "resets_at", is_="quota_window"),
        cell(MONEY, 429, "usage_limit_reached", "resets_in_seconds", is_="quota_window"),
        cell(AUTH, 401, is_="auth"),
        cell(AUTH, (400, 401), "refresh_token_reused", is_="auth_dead"),
        cell(TRAP, 429, '"type": "usage_limit_reached"', is_="quota_window"),
    ],
    "anthropic": [
        cell(RATE, 429, "rate_limit_error", is_="rate_limit"),
        cell(MONEY, 402, "billing_error", is_="quota_billing"),
        cell(MONEY, 400, "credit balance is too low", is_="quota_billing"),
        cell(MONEY, 429, "enforced_spend_limit_reached", is_="quota_billing"),
        cell(AUTH, 401, "authentication_error", is_="auth"),
        cell(AUTH, 403, "permission_error", is_="permission"),
        cell(BUSY, 529, "overloaded_error", is_="overloaded"),
        cell(LONG, 413, "request_too_large", is_="payload_too_large"),
        cell(LONG, 400, "prompt is too long", is_="context_overflow"),
        cell(MODEL, 404, "not_found_error", is_="model_not_found"),
    ],
    "openrouter": [
        cell(RATE, 429, is_="rate_limit"),
        cell(RATE, 429, "provider_name", is_="rate_limit_upstream"),
        cell(MONEY, 402, is_="quota_billing"),
        cell(MONEY, 403, "key limit exceeded", is_="quota_billing"),
        cell(AUTH, 401, is_="auth"),
        cell(BUSY, 502, is_="overloaded"),
        cell(BUSY, 503, is_="overloaded"),
        cell(LONG, 400, is_="context_overflow"),
        cell(MODEL, 400, "not a valid model", is_="model_not_found"),
        cell(MODEL, 404, "no endpoints", is_="model_not_found"),
        cell(TRAP, 200, '"error"', is_="rate_limit_upstream"),
        cell(TRAP, 429, '"raw": "{', is_="rate_limit_upstream"),
        cell(TRAP, 403, '"reasons"', is_="content_filter"),
        cell(TRAP, 404, "privacy", is_="policy_blocked"),
    ],
    "groq": [
        cell(RATE, 429, is_="rate_limit"),
        cell(AUTH, 401, is_="auth"),
        cell(BUSY, 503, is_="overloaded"),
        cell(BUSY, 498, "capacity_exceeded", is_="overloaded"),
        cell(LONG, 413, is_="payload_too_large"),
        cell(MODEL, 404, is_="model_not_found"),
    ],
    "mistral": [
        cell(RATE, 429, "1300", is_="rate_limit"),
        cell(MONEY, 402, is_="quota_billing"),
        cell(AUTH, 401, is_="auth"),
        cell(BUSY, (500, 502, 503), is_=BROKEN),
        cell(LONG, (400, 422), is_="context_overflow"),
        cell(MODEL, 400, is_="model_not_found"),
        cell(MODEL, 404, is_="model_not_found"),
    ],
    "deepseek": [
        cell(RATE, 429, is_="rate_limit"),
        cell(MONEY, 402, is_="quota_billing"),
        cell(AUTH, 401, is_="auth"),
        cell(BUSY, 503, is_="overloaded"),
        cell(LONG, 400, is_="context_overflow"),
        cell(MODEL, 400, is_="model_not_found"),
        cell(TRAP, 422, is_="bad_request"),
    ],
    "gemini": [
        cell(RATE, 429, "RESOURCE_EXHAUSTED", "PerMinute", is_="rate_limit"),
        cell(MONEY, 429, "PerDay", is_="quota_window"),
        cell(MONEY, 429, "limit: 0", is_="entitlement"),
        cell(AUTH, 400, "API_KEY_INVALID", is_="auth"),
        cell(AUTH, 403, is_=REFUSED),
        cell(BUSY, 503, is_="overloaded"),
        cell(LONG, 400, is_="context_overflow"),
        cell(MODEL, 404, is_="model_not_found"),
        cell(TRAP, 429, "check your plan and billing details", "PerMinute", is_="rate_limit"),
    ],
    "zai": [
        *(cell(RATE, 429, code, is_="rate_limit") for code in ("1302", "1303")),
        *(cell(MONEY, 429, code, is_="quota_billing") for code in ("1113", "1309")),
        *(cell(MONEY, 429, code, is_="quota_window") for code in ("1308", "1310")),
        cell(AUTH, 401, is_="auth"),
        *(cell(AUTH, 401, str(code), is_="auth") for code in range(1000, 1005)),
        *(
            cell(AUTH, (401, 429), code, is_=("auth", "auth_dead"))
            for code in ("1110", "1111", "1112", "1120", "1121")
        ),
        *(
            cell(BUSY, (429, 500, 503), words, is_="overloaded")
            for words in ("1305", "1234", "temporarily overloaded")
        ),
        cell(LONG, (400, 429), "1261", is_="context_overflow"),
        cell(MODEL, (400, 429), "1211", is_="model_not_found"),
        cell(TRAP, (400, 429), "1301", is_="content_filter"),
        cell(TRAP, (403, 429), "1311", is_="entitlement"),
    ],
    "moonshot": [
        cell(RATE, 429, "rate_limit_reached_error", is_="rate_limit"),
        cell(MONEY, 429, "exceeded_current_quota_error", is_="quota_billing"),
        cell(MONEY, 402, is_="quota_billing"),
        cell(MONEY, 403, "usage limit for this billing cycle", is_=("quota_billing", "quota_window")),
        cell(AUTH, 401, is_="auth"),
        cell(BUSY, 429, "engine is currently overloaded", is_="overloaded"),
        cell(LONG, 400, is_="context_overflow"),
        cell(MODEL, 404, is_="model_not_found"),
    ],
    "together": [
        cell(RATE, 429, is_="rate_limit"),
        cell(MONEY, 402, is_="quota_billing"),
        cell(AUTH, 401, is_="auth"),
        cell(BUSY, 503, is_="overloaded"),
        cell(LONG, 403, is_="context_overflow"),
        cell(MODEL, 404, is_="model_not_found"),
    ],
    "fireworks": [
        cell(RATE, 429, is_="rate_limit"),
        cell(MONEY, 402, is_="quota_billing"),
        cell(MONEY, 412, "suspended", is_="quota_billing"),
        cell(AUTH, 401, is_="auth"),
        cell(AUTH, 403, is_=REFUSED),
        cell(BUSY, 503, is_="overloaded"),
        cell(LONG, 400, is_="context_overflow"),
        cell(LONG, 413, is_=TOO_LONG),
        cell(MODEL, 404, is_="model_not_found"),
    ],
    "xai": [
        cell(RATE, 429, is_="rate_limit"),
        cell(MONEY, 403, "spending limit", is_="quota_billing"),
        cell(AUTH, 400, "incorrect api key", is_="auth"),
        cell(AUTH, 401, is_="auth"),
        cell(LONG, 400, is_="context_overflow"),
        cell(MODEL, 404, is_="model_not_found"),
    ],
    "azure": [
        cell(RATE, 429, "retry-after-ms", is_="rate_limit"),
        cell(AUTH, 401, is_="auth"),
        cell(AUTH, 403, is_=REFUSED),
        cell(BUSY, 429, "high demand", is_="overloaded"),
        cell(BUSY, 503, is_="overloaded"),
        cell(LONG, 400, is_="context_overflow"),
        cell(MODEL, 404, "DeploymentNotFound", is_="model_not_found"),
        cell(TRAP, 400, "content_filter", "ResponsibleAIPolicyViolation", is_="content_filter"),
    ],
}
MORE: Final[dict[str, list[Cell]]] = {
    "openai": [
        cell("more", 429, "billing_not_active", is_="quota_billing"),
        cell("more", 429, "Request too large for", is_="payload_too_large"),
        cell("more", 400, "invalid_prompt", is_="content_filter"),
        cell("more", 401, "missing_scope", is_="permission"),
        cell("more", (500, 502, 503), "parameter", is_="bad_request"),
    ],
    "groq": [cell("more", 413, "Request too large for", is_="payload_too_large")],
    "anthropic": [
        cell("more", 400, "specified API usage limits", is_="quota_billing"),
        cell("more", 400, "extra usage", is_="quota_billing"),
        cell("more", 429, "Extra usage is required for long context", is_="entitlement"),
    ],
    "openai-codex": [
        cell(
            "more", 400, "detail", "not supported when using Codex with a ChatGPT account", is_="entitlement"
        ),
        cell("more", 402, "deactivated_workspace", is_="auth_dead"),
        cell("more", 401, "token_expired", is_="auth"),
    ],
    "openrouter": [
        cell("more", 402, "openrouter_in_flight_budget", "retry-after", is_="rate_limit"),
        cell(
            "more", (400, 429), '"provider_name": null', is_=("rate_limit", "context_overflow", "bad_request")
        ),
        cell("more", 400, '"provider_name": "', is_=("bad_request", "context_overflow")),
    ],
    "gemini": [cell("more", 403, "reported as leaked", is_="auth_dead")],
    "zai": [
        *(cell("more", 429, str(code), is_="quota_window") for code in range(1316, 1322)),
        cell("more", (403, 429), "1313", is_="policy_blocked"),
        cell("more", 200, "1305", is_="overloaded"),
    ],
    "moonshot": [
        cell("more", 403, "5-hour", is_="quota_window"),
        cell("more", 403, "weekly", is_="quota_window"),
        cell("more", 403, "exceeded_current_quota_error", is_="quota_billing"),
    ],
    "xai": [
        cell("more", 429, is_="quota_billing"),
        cell("more", 403, "violates usage guidelines", is_="content_filter"),
    ],
    "deepseek": [
        cell("more", 400, "Content Exists Risk", is_="content_filter"),
        cell("more", 400, "Model Not Exist", is_="model_not_found"),
    ],
    "alibaba": [
        cell("more", 400, "Arrearage", is_="quota_billing"),
        cell("more", 403, "AllocationQuota.FreeTierOnly", is_="entitlement"),
        cell("more", 400, "data_inspection_failed", is_="content_filter"),
        cell("more", 400, "Range of input length", is_="context_overflow"),
        cell(
            "more", 429, "insufficient_quota", "exceeded your current quota", "#token-limit", is_="rate_limit"
        ),
    ],
    "nvidia": [
        cell("more", 404, "Function", "Not found for account", is_="entitlement"),
        cell("more", 410, "end of life", is_="model_not_found"),
        cell("more", 403, "Authorization failed", is_="auth"),
        cell("more", 429, is_="rate_limit"),
    ],
    "huggingface": [
        cell("more", (401, 402, 403), '"error": "', is_=("auth", "quota_billing", "permission")),
        cell("more", 400, "model_not_supported", is_="model_not_found"),
    ],
    "together": [
        cell("more", 400, "model_not_available", is_="model_not_found"),
        cell("more", 429, "credit_limit", is_="rate_limit"),
    ],
    "mistral": [cell("more", (400, 429, 500, 503), "3505", is_="overloaded")],
    "ollama-cloud": [cell("more", 429, word, is_="quota_window") for word in ("hourly", "session", "weekly")],
    "llama-cpp": [
        cell("more", 400, "exceed_context_size_error", is_="context_overflow"),
        cell("more", 503, "Loading model", is_="overloaded"),
    ],
    "lmstudio": [cell("more", 400, "n_keep", is_="context_overflow")],
    "vllm": [cell("more", 400, "max_tokens must be at least 1, got -", is_="context_overflow")],
    "custom": [
        cell("more", (400, 429), '"type": "budget_exceeded"', is_="quota_billing"),
        cell("more", 429, "No deployments available", "Try again in 60 seconds", is_="overloaded"),
    ],
}
EVERY_CELL: Final = [
    (provider, each) for table in (PROVIDERS, MORE) for provider, cells in table.items() for each in cells
]


@cache
def recorded(provider: str) -> tuple[dict[str, Any], ...]:
    """Return the recorded answers of a provider."""
    files = sorted((RECORDED / provider).glob("*.yaml"))
    return tuple(yaml.safe_load(file.read_text(encoding="utf-8")) for file in files)


@pytest.mark.parametrize(
    ("provider", "known"), EVERY_CELL, ids=[f"{provider}/{each}" for provider, each in EVERY_CELL]
)
def test_each_filled_cell_has_a_recorded_answer(provider: str, known: Cell) -> None:
    """Of that status, with those words, and of that class; `test_provider_errors` proves that it gets it."""
    assert any(known.is_shown_by(case) for case in recorded(provider)), f"nothing recorded for {known}"


def test_a_list_of_one_is_recorded_for_gemini() -> None:
    """Its body may be a list."""
    assert any(case["body"].lstrip().startswith("[") for case in recorded("gemini"))


@pytest.mark.parametrize("provider", ["mistral", "xai"])
def test_a_flat_body_is_recorded_where_providers_send_one(provider: str) -> None:
    """Without an `error` around it."""
    bodies = [yaml.safe_load(case["body"]) for case in recorded(provider) if case["body"].startswith("{")]

    assert any(
        not isinstance(body.get("error"), dict) and ("message" in body or "code" in body) for body in bodies
    )
