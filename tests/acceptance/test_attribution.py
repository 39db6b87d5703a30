"""S13, S16: a mark belongs to the attempt that earned it; an operator's reset beats what came before it."""

from datetime import UTC, datetime

import pytest
from support.workplace import Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: openai-codex/gpt-5.5
fallback_providers: [zai/glm-5.1]
providers:
  openai-codex:
    base_url: {codex}
    credentials: [{{label: plan, oauth: {{token_url: "{token}"}}}}]
  zai: {{base_url: "{zai}"}}
jobs: [{{name: digest, schedule: every 1s, prompt: "Summarise."}}]
"""
BALANCE_EMPTY = Reply.json(
    429, {"error": {"code": "1113", "message": "Insufficient balance, please recharge."}}
)
PLAN_USED_UP = Reply.json(429, {"error": {"type": "usage_limit_reached", "resets_in_seconds": 7200}})
MARKS = """
SELECT m.scope, m.provider, m.error_class, m.code, m.attempt_id, a.provider AS earned_by
FROM marks m JOIN attempts a ON a.id = m.attempt_id ORDER BY m.id
"""


@pytest.fixture
def house(workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback) -> Workplace:
    """A workplace with Codex first and Z.AI as its fallback."""
    workplace.configure(CONFIG.format(codex=primary.codex_url, token=primary.token_url, zai=backup.base_url))
    workplace.environ["ZAI_API_KEY"] = "zai-key"
    return workplace


def test_s13_an_empty_balance_of_the_fallback_stands_on_the_fallback_alone(
    house: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CODEX, Reply.responses_status("failed", output_text="half"))
    backup.script(Endpoint.CHAT, BALANCE_EMPTY)
    house.log_in(refresh_token="good", access_token="codex-access")

    with house.daemon():
        house.wait_finished()
    run = house.shown(house.finished_runs()[0]["id"])
    codex, zai = house.credential("openai-codex"), house.credential("zai")
    (why,) = house.json("auth", "why", "zai")
    assert [each for each in house.json("auth", "why", "openai-codex") if each["label"]] == []
    marks = house.rows(MARKS)

    *_, empty = run["attempts"]
    assert (empty["provider"], empty["http_status"], empty["code"]) == ("zai", 429, "1113")
    assert (run["state"], run["reason"]) == ("failed", "invalid_response")
    assert (codex["status"], codex["reason"], codex["code"], codex["attempt_id"]) == ("ok", None, None, None)
    assert (zai["status"], zai["reason"], zai["code"]) == ("exhausted", "quota_billing", "1113")
    assert zai["attempt_id"] == why["attempt_id"] == why["attempt"]["id"] == empty["id"]
    assert (why["attempt"]["message"], why["run_id"]) == ("Insufficient balance, please recharge.", run["id"])
    of_zai = [mark for mark in marks if mark["provider"] == "zai"]
    assert [(m["scope"], m["error_class"], m["code"], m["attempt_id"]) for m in of_zai] == [
        ("group", "quota_billing", "1113", empty["id"])
    ]
    assert all(mark["provider"] == mark["earned_by"] for mark in marks)
    assert {m["scope"] for m in marks if m["provider"] == "openai-codex"} <= {"endpoint"}
    assert {request.key for request in primary.requests} == {"codex-access"}
    assert {request.key for request in backup.requests} == {"zai-key"}


def test_s13_two_failures_in_one_run_are_told_apart(
    house: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    """The login is dead for its own reason, with its own words; none of them is Z.AI's."""
    primary.script(Endpoint.TOKEN, Reply.token_error(401, "invalid_grant", description="Login has ended"))
    backup.script(Endpoint.CHAT, BALANCE_EMPTY)
    house.log_in(refresh_token="spent", expires_in=-60)

    run = house.ran("job", "run", "digest")

    refused, empty = run["attempts"]
    codex, zai = house.credential("openai-codex"), house.credential("zai")
    assert (codex["status"], codex["code"], codex["attempt_id"]) == ("dead", "invalid_grant", refused["id"])
    assert (zai["status"], zai["code"], zai["attempt_id"]) == ("exhausted", "1113", empty["id"])
    assert [(m["provider"], m["earned_by"], m["attempt_id"]) for m in house.rows(MARKS)] == [
        ("openai-codex", "openai-codex", refused["id"]),
        ("zai", "zai", empty["id"]),
    ]
    told = house.run("auth", "why", "codex").out
    assert "Login has ended" in told
    assert "balance" not in told
    assert "Insufficient balance" in house.run("auth", "why", "zai").out


def test_s16_a_reset_is_felt_by_the_running_daemon_at_once_and_lasts(
    house: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    primary.script(Endpoint.TOKEN, Reply.token_error(401, "invalid_grant"))
    house.log_in(refresh_token="first", expires_in=-60)

    with house.daemon():
        house.wait_finished(2)
        assert house.credential("openai-codex")["status"] == "dead"
        primary.script(Endpoint.TOKEN, Reply.tokens(access_token="fresh", refresh_token="second"))
        reset = house.run("auth", "reset", "openai-codex")
        reset_at = datetime.now(UTC)
        later = eventually(lambda: runs_after(house, reset_at, number=3))
        credential = house.credential("openai-codex")

    assert reset.code == 0
    assert {run["served"]["provider"] for run in later} == {"openai-codex"}
    assert (credential["status"], credential["attempt_id"]) == ("ok", None)
    assert house.rows(MARKS) == []
    assert [request.key for request in primary.received(Endpoint.TOKEN)] == ["first", "first"]


def runs_after(
    workplace: Workplace, moment: datetime, *, number: int
) -> list[dict[str, dict[str, str]]] | None:
    """Return the runs that started after a moment and have ended, once there are so many."""
    started = "SELECT id FROM runs WHERE finished_at IS NOT NULL AND started_at > ?"
    if len(workplace.rows(started, moment.replace(tzinfo=None).isoformat(" "))) < number:
        return None
    runs = [run for run in workplace.json("run", "list") if run["finished_at"] and run["started_at"]]
    return [run for run in runs if datetime.fromisoformat(run["started_at"]) > moment]


@pytest.mark.parametrize(
    ("endpoint", "refusal", "expires_in", "error_class"),
    [
        (Endpoint.CODEX, PLAN_USED_UP, None, "quota_window"),
        (Endpoint.TOKEN, Reply.token_error(401, "invalid_grant"), -60, "auth_dead"),
    ],
    ids=["a prompt", "a refresh"],
)
def test_s16_an_attempt_that_was_under_way_at_the_reset_writes_no_mark(
    house: Workplace,
    primary: ThreadedLoopback,
    backup: ThreadedLoopback,
    endpoint: Endpoint,
    refusal: Reply,
    expires_in: int | None,
    error_class: str,
) -> None:
    good = Reply.tokens(access_token="fresh") if endpoint is Endpoint.TOKEN else Reply.text("well again")
    primary.script(endpoint, refusal.held(), good)
    house.log_in(refresh_token="first", expires_in=expires_in)

    with house.daemon():
        primary.wait_received(1, endpoint=endpoint)
        assert house.run("auth", "reset", "codex").code == 0
        assert (primary.in_flight, len(primary.requests)) == (1, 1)
        primary.let_go()
        house.wait_finished(2)

    first, second = (house.shown(run["id"]) for run in house.finished_runs(2)[:2])
    credential = house.credential("openai-codex")
    assert (first["fallback_reason"], first["served"]["provider"]) == (error_class, "zai")
    assert [a["error_class"] for a in first["attempts"]] == [error_class, None]
    assert (second["served"]["provider"], second["fallback"]) == ("openai-codex", False)
    assert (credential["status"], credential["reason"], credential["until"]) == ("ok", None, None)
    assert house.rows(MARKS) == []


def test_s16_a_refusal_that_began_after_the_reset_counts_again(
    house: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    """A reset forgives what was, not what comes: the ladder starts at its first step."""
    primary.script(Endpoint.CODEX, PLAN_USED_UP)
    house.log_in(refresh_token="first", access_token="codex-access")
    house.ran("job", "run", "digest")
    lifted = house.json("auth", "reset", "codex")

    run = house.ran("job", "run", "digest")

    (again,) = house.rows("SELECT attempt_id, step FROM marks WHERE provider = 'openai-codex'")
    assert (lifted["provider"], lifted["lifted"]) == ("openai-codex", 1)
    assert (again["attempt_id"], again["step"]) == (run["attempts"][0]["id"], 1)
