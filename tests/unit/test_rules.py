"""The rules: what may be written in one, whose are tried first, and where the built-in ones come from."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from pydantic import ValidationError

from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.providers.answer import Answer, Verdict
from jobs.providers.classify import classify
from jobs.providers.rules import Rule, Rules

NOW: Final = datetime(2026, 9, 4, 8, tzinfo=UTC)
RULES: Final = Rules.load_builtin()
ZAI_CODE_1113: Final = {"error": {"code": "1113", "message": "Insufficient balance"}}


def verdict(
    status: int,
    body: Any = None,
    *,
    rules: Rules,
    provider: str = "custom:box",
    headers: Mapping[str, str] | None = None,
) -> Verdict:
    """Classify an answer by `rules`; its body is sent as JSON."""
    answer = Answer(status, headers or {}, b"" if body is None else json.dumps(body).encode())
    return classify(answer, ProviderName(provider), rules, now=NOW)


def test_a_users_rule_is_tried_first() -> None:
    """It outweighs a built-in rule for the same code."""
    rule = Rule.model_validate({"status": 429, "code": 1113, "class": "rate_limit"})
    rules = RULES.with_user_rules(ProviderName("zai"), [rule])

    result = verdict(429, ZAI_CODE_1113, provider="zai", rules=rules)

    assert (result.error_class, result.rule) == (ErrorClass.RATE_LIMIT, "zai/user-1113")


def test_a_users_rule_serves_only_its_provider() -> None:
    """Other providers keep their meaning."""
    rule = Rule.model_validate({"status": 402, "class": "bad_request"})
    rules = RULES.with_user_rules(ProviderName("custom:a"), [rule])

    assert verdict(402, provider="custom:a", rules=rules).error_class == "bad_request"
    assert verdict(402, provider="custom:b", rules=rules).error_class == "quota_billing"


USER_RULES: Final[dict[str, dict[str, Any]]] = {
    "status and text": {"status": [400, 418], "text": "tea ?pot"},
    "header": {"header": {"X-Kind": "^tea"}},
    "type": {"type": "brew"},
    "field": {"field": {"metadata.pot": True}},
    "all of them": {
        "status": 418,
        "code": "t1",
        "type": "brew",
        "text": "TEAPOT",
        "header": {"x-kind": True},
    },
}


@pytest.mark.parametrize("keys", USER_RULES.values(), ids=USER_RULES)
def test_a_users_rule_may_ask_for_any_key(keys: dict[str, Any]) -> None:
    """Status, code, type, text, header and field may be combined."""
    rules = RULES.with_user_rules(
        ProviderName("custom:box"), [Rule.model_validate({**keys, "class": "overloaded"})]
    )
    body = {"error": {"code": "t1", "type": "brew", "message": "I am a teapot", "metadata": {"pot": 1}}}

    assert verdict(418, body, headers={"x-kind": "teapot"}, rules=rules).error_class == "overloaded"
    assert verdict(418, {"error": {"message": "no"}}, rules=rules).error_class == "unknown"


@pytest.mark.parametrize(
    "keys", [{"class": "auth"}, {"status": 401, "class": "no_such_class"}, {"text": "(", "class": "auth"}]
)
def test_a_rule_that_cannot_work_is_refused_when_it_is_read(keys: dict[str, Any]) -> None:
    """A rule needs something to match, a class that exists, and a pattern that compiles."""
    with pytest.raises(ValidationError):
        Rule.model_validate(keys)


def test_every_builtin_rule_has_a_source() -> None:
    """A fact without a source cannot be checked."""
    assert all(rule.source != Rule.model_fields["source"].default for rule in RULES.builtin)
