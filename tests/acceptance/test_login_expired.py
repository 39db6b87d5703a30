"""S1, S2, S9: the primary's login fails, in the ways that it can, and the run is answered all the same."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: codex/gpt-5.5
fallback_providers:
  - {{provider: custom, name: local, base_url: "{backup}", model: small, api_key: backup-key}}
providers:
  openai-codex:
    base_url: {codex}
    headers: {{chatgpt-account-id: house}}
    credentials:
      - {{label: plan, oauth: {{token_url: "{token}"}}}}
      {spare}
jobs:
  - {{name: digest, schedule: every 1s, prompt: "Summarise."}}
"""
SPARE = "- {label: spare, key: env:SPARE_KEY}"
EIGHT = tuple(f"digest-{number}" for number in range(8))
WINDOW = Reply.json(
    429, {"error": {"type": "usage_limit_reached", "message": "later", "resets_in_seconds": 3600}}
)
DEATH_WORD = Reply.error(401, code="token_invalidated", message="Your session has ended.")


@pytest.fixture
def careful() -> Iterator[ThreadedLoopback]:
    """A provider whose refresh tokens are good once; a second use ends the login."""
    with ThreadedLoopback(single_use=True, revoke_on_reuse=True) as server:
        yield server


def configure(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback, spare: str = ""
) -> None:
    addresses = {"codex": primary.codex_url, "token": primary.token_url, "backup": backup.base_url}
    workplace.configure(CONFIG.format(**addresses, spare=spare))


def asked(server: ThreadedLoopback) -> list[tuple[Endpoint | None, str | None]]:
    """Return which endpoints were asked with which keys, in order."""
    return [(request.endpoint, request.key) for request in server.requests]


def test_s1_a_refresh_answered_401_is_taken_over_by_the_fallback(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    configure(workplace, primary, backup)
    primary.script(Endpoint.TOKEN, Reply.token_error(401, "invalid_grant"))
    backup.script(Endpoint.CHAT, Reply.text("all quiet"))
    workplace.log_in(refresh_token="spent", expires_in=-60)

    with workplace.daemon():
        workplace.wait_finished()

    run, credential = (
        workplace.shown(workplace.finished_runs()[0]["id"]),
        workplace.credential("openai-codex"),
    )
    assert (run["state"], run["output"]) == ("succeeded", "all quiet")
    assert run["requested"] == {"provider": "openai-codex", "model": "gpt-5.5"}
    assert run["served"] == {"provider": "custom:local", "model": "small", "credential": "key"}
    assert (run["fallback"], run["fallback_reason"], run["error"]) == (True, "auth_dead", None)
    refused, answered = run["attempts"]
    assert (refused["purpose"], refused["error_class"], refused["http_status"]) == (
        "refresh",
        "auth_dead",
        401,
    )
    assert (refused["outcome"], refused["recovery"]) == ("failed", "next_target")
    assert (answered["outcome"], answered["target_index"]) == ("succeeded", 1)
    assert (credential["status"], credential["reason"], credential["code"]) == (
        "dead",
        "auth_dead",
        "invalid_grant",
    )
    assert (credential["attempt_id"], credential["until"]) == (refused["id"], None)
    assert asked(primary) == [(Endpoint.TOKEN, "spent")]
    assert set(asked(backup)) == {(Endpoint.CHAT, "backup-key")}


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Reply.raw(401), None),
        (Reply.error(401, code="refresh_token_reused", message="Please sign in."), "refresh_token_reused"),
    ],
    ids=["a bare 401", "the vendor's own shape"],
)
def test_s1_a_refresh_refused_for_good_leaves_the_login_dead(
    workplace: Workplace,
    primary: ThreadedLoopback,
    backup: ThreadedLoopback,
    refusal: Reply,
    code: str | None,
) -> None:
    configure(workplace, primary, backup)
    primary.script(Endpoint.TOKEN, refusal)
    workplace.log_in(refresh_token="spent", expires_in=-60)

    run = workplace.ran("job", "run", "digest")

    credential = workplace.credential("openai-codex")
    assert (run["state"], run["fallback_reason"]) == ("succeeded", "auth_dead")
    assert (credential["status"], credential["code"]) == ("dead", code)
    assert asked(primary) == [(Endpoint.TOKEN, "spent")]


@pytest.mark.parametrize(
    "silence",
    [Reply.raw(403, {"content-type": "text/html"}, b"<html>no robots</html>"), Reply.raw(200).cut()],
    ids=["an edge's page", "a dropped connection"],
)
def test_s1_a_refresh_that_was_not_judged_closes_the_login_for_a_minute_only(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback, silence: Reply
) -> None:
    """Never sent again blindly: exactly one refresh request, then the next target."""
    configure(workplace, primary, backup)
    primary.script(Endpoint.TOKEN, silence)
    workplace.log_in(refresh_token="good", expires_in=-60)

    run = workplace.ran("job", "run", "digest")

    credential = workplace.credential("openai-codex")
    assert (run["state"], run["fallback_reason"]) == ("succeeded", "auth_unavailable")
    assert (credential["status"], credential["reason"]) == ("exhausted", "auth_unavailable")
    assert credential["until"] is not None
    assert asked(primary) == [(Endpoint.TOKEN, "good")]


def test_s2_a_primary_with_only_closed_credentials_is_passed_over_without_a_request(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    workplace.environ["SPARE_KEY"] = "spare-key"
    configure(workplace, primary, backup, SPARE)
    primary.script(Endpoint.TOKEN, Reply.token_error(401, "invalid_grant"))
    primary.script(Endpoint.CODEX, WINDOW)
    workplace.log_in(refresh_token="spent", expires_in=-60)

    with workplace.daemon():
        workplace.wait_finished(2)

    first, second = (workplace.shown(run["id"]) for run in workplace.finished_runs(2)[:2])
    dead, exhausted, _answered = first["attempts"]
    assert [dead["recovery"], exhausted["recovery"]] == ["next_credential", "next_target"]
    assert (exhausted["credential"], exhausted["error_class"]) == ("spare", "quota_window")
    passed_over, answered = second["attempts"]
    assert (passed_over["outcome"], passed_over["target_index"]) == ("passed_over", 0)
    assert (passed_over["provider"], passed_over["credential"]) == ("openai-codex", None)
    assert (passed_over["error_class"], passed_over["recovery"]) == ("auth_dead", "next_target")
    assert f"plan is dead: auth_dead invalid_grant, attempt {dead['id']}" in passed_over["message"]
    assert (
        f"spare is exhausted: quota_window usage_limit_reached, attempt {exhausted['id']}"
        in passed_over["message"]
    )
    assert (answered["provider"], answered["outcome"]) == ("custom:local", "succeeded")
    assert (second["state"], second["fallback_reason"]) == ("succeeded", "auth_dead")
    assert asked(primary) == [(Endpoint.TOKEN, "spent"), (Endpoint.CODEX, "spare-key")]
    assert {key for _, key in asked(backup)} == {"backup-key"}


def test_s9_a_401_in_the_middle_of_a_run_is_answered_by_one_refresh(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    configure(workplace, primary, backup)
    primary.script(Endpoint.CODEX, Reply.error(401, code="token_expired"), key="old-access")
    primary.script(Endpoint.CODEX, Reply.text("still here"), key="new-access")
    primary.script(Endpoint.TOKEN, Reply.tokens(access_token="new-access", refresh_token="second"))
    workplace.log_in(refresh_token="first", access_token="old-access")

    run = workplace.ran("job", "run", "digest")

    assert (run["state"], run["output"]) == ("succeeded", "still here")
    assert run["served"] == {"provider": "openai-codex", "model": "gpt-5.5", "credential": "plan"}
    assert (run["fallback"], run["fallback_reason"]) == (False, None)
    steps = [(a["purpose"], a["outcome"], a["error_class"], a["recovery"]) for a in run["attempts"]]
    assert steps == [
        ("main", "failed", "auth", "refresh"),
        ("refresh", "succeeded", None, None),
        ("main", "succeeded", None, None),
    ]
    assert asked(primary) == [
        (Endpoint.CODEX, "old-access"),
        (Endpoint.TOKEN, "first"),
        (Endpoint.CODEX, "new-access"),
    ]
    assert backup.requests == []
    assert workplace.credential("openai-codex")["status"] == "ok"


def test_s9_runs_that_are_refused_together_share_one_refresh(
    workplace: Workplace, careful: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    configure(workplace, careful, backup)
    with workplace.config.open("a") as file:
        file.writelines(
            f'  - {{name: {name}, schedule: every 1s, max_runs: 1, prompt: "Go."}}\n' for name in EIGHT
        )
    careful.script(Endpoint.CODEX, Reply.error(401, code="token_expired").held(), key="old-access")
    workplace.log_in(refresh_token="first", access_token="old-access")

    with workplace.daemon():
        careful.wait_received(len(EIGHT), key="old-access")
        careful.let_go()
        workplace.wait_first_runs(*EIGHT)

    runs = workplace.first_runs(*EIGHT)
    assert {(run["state"], run["served"]["provider"]) for run in runs.values()} == {
        ("succeeded", "openai-codex")
    }
    assert [request.key for request in careful.received(Endpoint.TOKEN)] == ["first"]
    assert backup.requests == []


@pytest.mark.parametrize(
    ("refusal", "status"),
    [(Reply.token_error(401, "invalid_grant"), "dead"), (Reply.raw(503), "exhausted")],
    ids=["dead", "unavailable"],
)
def test_s9_runs_that_need_one_refresh_share_its_refusal(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback, refusal: Reply, status: str
) -> None:
    """What one run has been told about the login, the others need not ask again."""
    configure(workplace, primary, backup)
    with workplace.config.open("a") as file:
        file.writelines(
            f'  - {{name: {name}, schedule: every 1s, max_runs: 1, prompt: "Go."}}\n' for name in EIGHT
        )
    primary.script(Endpoint.TOKEN, refusal.after(0.5))
    workplace.log_in(refresh_token="first", expires_in=-60)

    with workplace.daemon():
        workplace.wait_first_runs(*EIGHT)

    runs, credential = workplace.first_runs(*EIGHT), workplace.credential("openai-codex")
    assert {(run["state"], run["served"]["provider"]) for run in runs.values()} == {
        ("succeeded", "custom:local")
    }
    assert asked(primary) == [(Endpoint.TOKEN, "first")]
    assert credential["status"] == status
    outcomes = sorted(run["attempts"][0]["outcome"] for run in runs.values())
    assert outcomes in (["failed", *["passed_over"] * 7], ["passed_over"] * 8)


def test_s9_two_processes_share_one_refresh(
    workplace: Workplace, careful: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    configure(workplace, careful, backup)
    careful.script(Endpoint.TOKEN, Reply.tokens(access_token="new", refresh_token="second").after(1.0))
    workplace.log_in(refresh_token="first", expires_in=-60)

    with ThreadPoolExecutor(2) as both:
        runs = list(both.map(lambda _: workplace.ran("job", "run", "digest"), range(2)))

    assert [run["served"]["provider"] for run in runs] == ["openai-codex", "openai-codex"]
    assert [request.key for request in careful.received(Endpoint.TOKEN)] == ["first"]
    assert [request.key for request in careful.received(Endpoint.CODEX)] == ["new", "new"]


def test_s9_a_death_word_is_believed_only_after_a_refresh_that_succeeded(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    configure(workplace, primary, backup)
    primary.script(Endpoint.CODEX, DEATH_WORD)
    primary.script(Endpoint.TOKEN, Reply.tokens(access_token="new-access"))
    workplace.log_in(refresh_token="first", access_token="old-access")

    run = workplace.ran("job", "run", "digest")

    steps = [(a["purpose"], a["error_class"], a["recovery"]) for a in run["attempts"]]
    assert steps == [
        ("main", "auth_dead", "refresh"),
        ("refresh", None, None),
        ("main", "auth_dead", "next_target"),
        ("main", None, None),
    ]
    assert (run["state"], run["fallback_reason"]) == ("succeeded", "auth_dead")
    credential = workplace.credential("openai-codex")
    assert (credential["status"], credential["attempt_id"]) == ("dead", run["attempts"][2]["id"])
    assert [key for _, key in asked(primary)] == ["old-access", "first", "new-access"]
