"""`kill -9` in the middle of a refresh: never a blind replay; at worst the login is dead, with a way out."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint
from jobs.providers.loopback_thread import ThreadedLoopback

VICTIM = Path(__file__).parents[1] / "support" / "killed_refresh.py"
CONFIG = """
model: codex/gpt-5.5
fallback_providers:
  - {{provider: custom, name: local, base_url: "{backup}", model: small, api_key: no-key-required}}
providers:
  openai-codex:
    base_url: {codex}
    credentials: [{{label: plan, oauth: {{token_url: "{token}"}}}}]
jobs:
  - {{name: digest, schedule: every 1d, prompt: "Summarise.", timeout: 30s}}
"""


@pytest.fixture
def careful() -> Iterator[ThreadedLoopback]:
    """A provider whose refresh tokens are good once; a second use ends the login."""
    with ThreadedLoopback(single_use=True, revoke_on_reuse=True) as server:
        yield server


@pytest.fixture
def stale(workplace: Workplace, careful: ThreadedLoopback, backup: ThreadedLoopback) -> Workplace:
    """A workplace whose login has ended, with a refresh token that is good once."""
    addresses = {"codex": careful.codex_url, "token": careful.token_url, "backup": backup.base_url}
    workplace.configure(CONFIG.format(**addresses))
    workplace.log_in(refresh_token="first", expires_in=-60)
    return workplace


def killed(workplace: Workplace, point: str) -> None:
    """Run the job in a process that is killed at a point of its refresh."""
    words = [sys.executable, str(VICTIM), point, "--config", str(workplace.config), "job", "run", "digest"]
    done = subprocess.run(
        words,
        cwd=workplace.directory,
        env=workplace.environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done


def sent(server: ThreadedLoopback) -> list[str | None]:
    """Return the refresh tokens that were sent, in order."""
    return [request.key for request in server.received(Endpoint.TOKEN)]


@pytest.mark.parametrize(("point", "left"), [("unsent", []), ("unstored", ["first"])])
def test_a_refresh_whose_answer_died_with_its_process_is_never_sent_again(
    stale: Workplace, careful: ThreadedLoopback, backup: ThreadedLoopback, point: str, left: list[str]
) -> None:
    """The token endpoint heard of the token once, or never: nobody who comes later can know, or tries.

    Nor does anybody wait for the lease of a process that is not there: a minute, and the run has half of one.
    """
    killed(stale, point)
    assert sent(careful) == left

    run = stale.ran("job", "run", "digest")

    assert sent(careful) == left
    assert (run["state"], run["served"]["provider"]) == ("succeeded", "custom:local")
    assert (run["fallback"], run["fallback_reason"]) == (True, "auth_dead")
    lost, answered = run["attempts"]
    assert (lost["purpose"], lost["outcome"], lost["http_status"]) == ("refresh", "failed", None)
    assert answered["provider"] == "custom:local"
    (first,) = stale.rows("SELECT id, outcome FROM attempts WHERE purpose = 'refresh' AND run_id = 1")
    assert first["outcome"] == "unknown"
    assert f"the answer to the refresh of attempt {first['id']} was lost" in lost["message"]


def test_a_lost_login_is_shown_with_its_way_out_and_mended_by_it(
    stale: Workplace, careful: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    killed(stale, "unstored")
    stale.ran("job", "run", "digest")

    listed = stale.run("auth", "list")
    (why,) = stale.json("auth", "why", "codex")
    dead = stale.credential("openai-codex")
    assert (dead["status"], dead["reason"], dead["attempt_id"]) == ("dead", "auth_dead", why["attempt"]["id"])
    assert "openai-codex plan is dead: log in again with `promptd auth import codex`" in listed.err
    assert why["attempt"]["message"].endswith("log in again with `promptd auth import codex`")

    stale.log_in(refresh_token="another", expires_in=-60)
    run = stale.ran("job", "run", "digest")

    assert (run["state"], run["served"]["provider"]) == ("succeeded", "openai-codex")
    assert sent(careful) == ["first", "another"]
    assert stale.credential("openai-codex")["status"] == "ok"


def test_taking_over_the_same_token_again_is_refused(
    stale: Workplace, careful: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    """The other tool's file still holds what we have sent: importing it would be the replay."""
    killed(stale, "unstored")

    said = stale.run("auth", "import", "codex", "--file", str(stale.directory / "auth.json"))
    run = stale.ran("job", "run", "digest")

    assert said.code == 2
    assert "its refresh token may be spent; log in anew where it comes from" in said.err
    assert (run["state"], run["fallback_reason"]) == ("succeeded", "auth_dead")
    assert sent(careful) == ["first"]


def test_a_token_that_was_stored_before_the_kill_is_used(
    stale: Workplace, careful: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    """The attempt's answer and the new token were committed together."""
    killed(stale, "stored")
    (settled,) = stale.rows("SELECT outcome FROM attempts WHERE purpose = 'refresh'")
    (login,) = stale.rows("SELECT generation, spent_by, lease_owner FROM tokens")
    assert settled["outcome"] == "succeeded"
    assert (login["generation"], login["spent_by"], login["lease_owner"]) == (2, None, None)

    run = stale.ran("job", "run", "digest")

    assert (run["state"], run["served"]["provider"]) == ("succeeded", "openai-codex")
    assert sent(careful) == ["first"]
    assert backup.requests == []
