"""The rules: what may be written in one, whose are tried first, and where the built-in ones come from."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from pydantic import ValidationError

from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.providers.answer import Answer, Origin, Verdict
from jobs.providers.classify import classify
from jobs.providers.rules import BuiltinRule, Rule, Rules

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
    "keys",
    [
        {"class": "auth"},
        {"status": 401},
        {"status": 401, "class": "no_such_class"},
        {"status": 4290, "class": "auth"},
        {"status": "4xx", "class": "auth"},
        {"text": "(", "class": "auth"},
        {"header": {"x-kind": "("}, "class": "auth"},
        {"field": {"metadata.pot": "["}, "class": "auth"},
        {"field": {"metadata.pot": False}, "class": "auth"},
        {"shape": "xml", "class": "auth"},
        {"origin": "elsewhere", "status": 401, "class": "auth"},
        {"provider": "zai", "status": 401, "class": "auth"},
        {"stauts": 401, "class": "auth"},
    ],
)
def test_a_rule_that_cannot_work_is_refused_when_it_is_read(keys: dict[str, Any]) -> None:
    """A rule needs something to match, a class that exists, patterns that compile, and known keys only.

    `provider` is no key of a user's rule: it stands under its provider.
    """
    with pytest.raises(ValidationError):
        Rule.model_validate(keys)


def test_users_rules_are_tried_in_the_order_of_the_file() -> None:
    """Not the one with more keys first, as among the built-in ones."""
    written = [{"status": 418, "class": "auth"}, {"status": 418, "text": "tea", "class": "overloaded"}]
    rules = RULES.with_user_rules(ProviderName("custom:box"), [Rule.model_validate(each) for each in written])

    assert verdict(418, {"message": "tea"}, rules=rules).error_class == "auth"


def test_a_users_rule_may_make_an_error_of_a_shape_or_of_a_token_endpoints_answer() -> None:
    """The keys `shape` and `origin`; a rule of one kind of endpoint says nothing of the other."""
    name = ProviderName("custom:box")
    shaped = RULES.with_user_rules(name, [Rule.model_validate({"shape": "html", "class": "overloaded"})])
    token = RULES.with_user_rules(
        name, [Rule.model_validate({"origin": "token", "status": 400, "class": "permission"})]
    )
    asked = Answer(400, {}, b'{"error": "invalid_grant"}', origin=Origin.TOKEN)

    page = Answer(403, {}, b"<html>")
    assert classify(page, name, shaped, now=NOW).error_class == "overloaded"
    assert classify(asked, name, token, now=NOW).error_class == "permission"
    assert verdict(400, rules=token).error_class == "bad_request"


def test_a_users_rule_calls_itself_by_its_name() -> None:
    """Else by what it matched."""
    rule = Rule.model_validate({"name": "teapot", "status": 418, "class": "overloaded"})
    rules = RULES.with_user_rules(ProviderName("custom:box"), [rule])

    assert verdict(418, rules=rules).rule == "custom:box/user-teapot"


def test_a_users_rule_reads_codes_that_the_provider_means_nothing_by() -> None:
    """Who writes a rule for one knows what it means."""
    rule = Rule.model_validate({"code": "invalid_request_error", "class": "permission"})
    rules = RULES.with_user_rules(ProviderName("deepseek"), [rule])

    body = {"error": {"code": "invalid_request_error", "message": "x"}}
    assert verdict(400, body, provider="deepseek", rules=rules).error_class == "permission"


def test_every_builtin_rule_has_a_source() -> None:
    """A fact without a source cannot be checked."""
    with pytest.raises(ValidationError, match="source"):
        BuiltinRule.model_validate({"status": 418, "class": "auth"})
    with pytest.raises(ValidationError, match="source"):
        BuiltinRule.model_validate({"status": 418, "class": "auth", "source": ""})
    assert all(isinstance(rule, BuiltinRule) for rule in RULES.builtin)


def test_every_sentence_of_a_rule_for_any_provider_is_sought_at_the_start_only() -> None:
    """Messages echo prompts; three words that any provider may say are the exception."""
    anywhere = {"model-words", "overload-words"}
    texts = {
        rule.name: rule.text
        for rule in RULES.builtin
        if "*" in rule.provider and rule.text is not None and rule.name not in anywhere
    }

    assert texts
    assert {
        name for name, text in texts.items() if not all(each[0] == "^" for each in _branches(text))
    } == set()


def _branches(text: str) -> list[str]:
    """Return the alternatives of a pattern that stand outside of all brackets."""
    branches, depth = [""], 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and depth == 0:
            branches.append("")
        else:
            branches[-1] += sign
    return branches
