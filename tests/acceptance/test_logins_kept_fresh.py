"""A daemon refreshes logins outside of runs and warns before they end; a vendor's login is taken over."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.workplace import Workplace, eventually, jwt

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: codex/gpt-5.5
providers:
  openai-codex:
    base_url: {codex}
    credentials: [{{label: plan, oauth: {{token_url: "{token}"}}}}]
jobs:
  - {{name: digest, schedule: every 1d, prompt: "Summarise."}}
"""
ACCOUNT = {"https://api.openai.com/auth": {"chatgpt_account_id": "acct-of-the-claim"}}


@pytest.fixture
def configured(workplace: Workplace, primary: ThreadedLoopback) -> Workplace:
    """A workplace whose primary needs a login."""
    workplace.configure(CONFIG.format(codex=primary.codex_url, token=primary.token_url))
    return workplace


def test_a_daemon_refreshes_a_login_before_it_ends_without_any_run(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.TOKEN, Reply.tokens(access_token="new-access", refresh_token="second"))
    configured.log_in(refresh_token="first", expires_in=300)
    with closing(sqlite3.connect(configured.database)) as database, database:
        database.execute("UPDATE tokens SET issued_at = strftime('%Y-%m-%d %H:%M:%f000', 'now', '-30 days')")

    with configured.daemon() as daemon:
        primary.wait_received(1, endpoint=Endpoint.TOKEN)
        refreshed = 'promptd_oauth_refresh_total{outcome="succeeded",provider="openai-codex"} 1.0'
        eventually(lambda: refreshed in daemon.get("/metrics")[1] or None)
        run = configured.ran("job", "run", "digest")

    (refresh,) = configured.rows("SELECT * FROM attempts WHERE purpose = 'refresh'")
    assert (refresh["run_id"], refresh["outcome"], refresh["credential"]) == (None, "succeeded", "plan")
    assert (run["state"], [attempt["purpose"] for attempt in run["attempts"]]) == ("succeeded", ["main"])
    assert [(one.endpoint, one.key) for one in primary.requests] == [
        (Endpoint.TOKEN, "first"),
        (Endpoint.CODEX, "new-access"),
    ]


def test_the_end_of_a_grant_is_logged_once_over_restarts_and_shown(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    configured.log_in(refresh_token="first", expires_in=7200)
    with closing(sqlite3.connect(configured.database)) as database, database:
        database.execute(
            "UPDATE tokens SET issued_at = strftime('%Y-%m-%d %H:%M:%f000', 'now', '-80 days'),"
            " grant_ends_at = strftime('%Y-%m-%d %H:%M:%f000', 'now', '+2 days')"
        )

    logs = []
    for _ in range(2):
        with configured.daemon() as daemon:
            eventually(
                lambda: configured.rows("SELECT 1 FROM tokens WHERE grant_warned_at IS NOT NULL") or None
            )
            assert daemon.stop() == 0
        logs.append(daemon.log.read_text())
    shown = [configured.run("auth", "list"), configured.run("status")]

    lines = [json.loads(line) for log in logs for line in log.splitlines() if "grant ending" in line]
    (warning,) = lines
    assert (warning["level"], warning["provider"], warning["credential"]) == (
        "warning",
        "openai-codex",
        "plan",
    )
    assert "grant ending" in logs[0]
    for said in shown:
        assert "openai-codex plan: the login ends in 1 d 23 h" in said.err
        assert "log in again with `promptd auth import codex`" in said.err


def take_over(workplace: Workplace, tokens: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Import a login and return what was said, and its row."""
    path = workplace.directory / "auth.json"
    path.write_text(json.dumps({"OPENAI_API_KEY": None, "tokens": tokens}))
    said = workplace.run("auth", "import", "codex", "--file", str(path))
    assert said.code == 0, said
    (row,) = workplace.rows("SELECT * FROM tokens")
    return said.err, row


def test_a_taken_over_login_has_the_client_of_its_id_token_and_warns_of_sharing(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    tokens = {
        "id_token": jwt({"aud": ["client-of-the-tool"], **ACCOUNT}),
        "access_token": jwt({"exp": 4_000_000_000, "iat": 1_700_000_000}),
        "refresh_token": "shared",
        "account_id": None,
    }

    said, row = take_over(configured, tokens)
    run = configured.ran("job", "run", "digest")

    assert "share a single-use refresh token" in said
    assert (row["client_id"], row["account_id"]) == ("client-of-the-tool", "acct-of-the-claim")
    assert row["issued_at"].startswith("2023-11-14")
    assert run["state"] == "succeeded"
    (asked,) = primary.received(Endpoint.CODEX)
    assert asked.by_name["chatgpt-account-id"] == "acct-of-the-claim"


def test_a_login_of_the_default_place_is_found(configured: Workplace) -> None:
    home = Path(configured.environment()["HOME"])
    (home / ".codex").mkdir()
    (home / ".codex" / "auth.json").write_text(
        json.dumps({"tokens": {"access_token": "opaque", "refresh_token": "r", "account_id": "acct-1"}})
    )

    assert configured.run("auth", "import", "codex").code == 0
    (row,) = configured.rows("SELECT account_id, expires_at FROM tokens")
    assert (row["account_id"], row["expires_at"]) == ("acct-1", None)
