"""Every recorded answer in `tests/provider_errors/<provider>/` gets the class, code and wait it states."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from jobs.names import ProviderName
from jobs.providers.answer import Answer, Origin, Verdict
from jobs.providers.classify import classify
from jobs.providers.rules import Rules

RECORDED: Final = Path(__file__).parents[1] / "provider_errors"
CASES: Final = sorted(RECORDED.glob("*/*.yaml"))
KEYS: Final = {"source", "note", "now", "origin", "status", "headers", "body", "expect"}
RULES: Final = Rules.load_builtin()


def _case(path: Path) -> dict[str, Any]:
    case: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return case


def _now(case: Mapping[str, Any]) -> datetime:
    moment: datetime = case["now"]
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _verdict(path: Path, case: Mapping[str, Any]) -> Verdict:
    answer = Answer(
        status=case["status"],
        headers=case.get("headers", {}),
        body=case["body"].encode(),
        origin=Origin(case.get("origin", "model")),
    )
    return classify(answer, ProviderName(path.parent.name), RULES, now=_now(case))


def _expected_wait(case: Mapping[str, Any]) -> datetime | None:
    expect = case["expect"]
    if "wait_seconds" in expect:
        return _now(case) + timedelta(seconds=expect["wait_seconds"])
    until: datetime | None = expect.get("until")
    return until if until is None or until.tzinfo else until.replace(tzinfo=UTC)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_answer_is_classified_as_it_states(path: Path) -> None:
    """The class, the provider's code and the wait of a recorded answer are what its file expects."""
    case = _case(path)

    verdict = _verdict(path, case)

    expect = case["expect"]
    assert (verdict.error_class or "none") == expect["class"], verdict
    assert verdict.code == expect["code"]
    assert (verdict.wait.until if verdict.wait else None) == _expected_wait(case)
    assert verdict.rule == expect.get("rule", verdict.rule)
    assert verdict.should_retry == expect.get("should_retry", verdict.should_retry)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_answer_names_its_source(path: Path) -> None:
    """A recorded answer says where it comes from, and has no key that the test would not read."""
    case = _case(path)

    assert case["source"].strip()
    assert set(case) <= KEYS
    assert set(case["expect"]) <= {"class", "code", "rule", "should_retry", "until", "wait_seconds"}


def test_every_provider_with_rules_of_its_own_has_recorded_answers() -> None:
    """Nobody adds rules for a provider without an answer that proves them."""
    ruled = {name for rule in RULES.builtin for name in rule.provider} - {"*"}

    assert ruled <= {path.parent.name for path in CASES}
