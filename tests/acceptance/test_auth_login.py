"""`promptd auth login` and `auth remove`: a login is made on another device, used, and forgotten."""

import signal
import subprocess
import sys

import pytest
from support.workplace import PATIENCE, PROMPTD, Workplace

from jobs.providers.loopback_replies import Endpoint, Received, Reply
from jobs.providers.loopback_thread import ThreadedLoopback
from jobs.providers.loopback_tokens import DEVICE_CODE_GRANT

CONFIG = """
model: plan/m
providers:
  plan:
    base_url: {url}
    credentials:
      - {{label: house, oauth: {{token_url: "{token}", client_id: app, scopes: [models, offline_access],
                                 device_authorization_url: "{device}"}}}}
  zai:
    credentials: [{{label: main, key: "env:ZAI_KEY"}}]
jobs:
  - {{name: digest, schedule: every 1d, prompt: "Summarise."}}
"""
PENDING = Reply.token_error(400, "authorization_pending")
GRANTED = Reply.tokens(access_token="first-access", refresh_token="first-refresh")
WITHOUT_AUTHLIB = (
    "import sys; sys.modules['authlib'] = None; from scheduler.cli import main; sys.exit(main())"
)


@pytest.fixture
def configured(workplace: Workplace, primary: ThreadedLoopback) -> Workplace:
    """A workplace whose provider knows device logins."""
    addresses = {"url": primary.base_url, "token": primary.token_url, "device": primary.device_url}
    workplace.configure(CONFIG.format(**addresses))
    return workplace


def polls(server: ThreadedLoopback) -> list[Received]:
    """Return the requests that asked whether the code had been approved."""
    return [one for one in server.received(Endpoint.TOKEN) if one.form()["grant_type"] == DEVICE_CODE_GRANT]


def device(**fields: object) -> Reply:
    """Return an answer to a device authorization request."""
    usual = {
        "device_code": "device-secret",
        "user_code": "WDJB-MJHT",
        "verification_uri": "https://example.com/device",
        "expires_in": 600,
        "interval": 0.2,
    }
    return Reply.json(200, {**usual, **fields})


def test_a_login_is_shown_polled_for_stored_and_used(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.DEVICE, device(verification_uri_complete="https://example.com/device?c=WDJB"))
    primary.script(Endpoint.TOKEN, PENDING, PENDING, GRANTED)

    said = configured.run("auth", "login", "Plan")
    run = configured.ran("job", "run", "digest")

    assert (said.code, said.err) == (0, "")
    assert "Open https://example.com/device in any browser and enter the code WDJB-MJHT" in said.out
    assert "or open https://example.com/device?c=WDJB" in said.out
    assert said.out.endswith("logged in: plan house.\n")
    (begun,) = primary.received(Endpoint.DEVICE)
    assert begun.form() == {"client_id": "app", "scope": "models offline_access"}
    assert [one.form() for one in polls(primary)] == [
        {"grant_type": DEVICE_CODE_GRANT, "device_code": "device-secret", "client_id": "app"}
    ] * 3
    assert (run["state"], run["served"]["credential"]) == ("succeeded", "house")
    assert [one.key for one in primary.received(Endpoint.CHAT)] == ["first-access"]
    for secret in (b"first-access", b"first-refresh", b"device-secret"):
        assert not any(secret in file.read_bytes() for file in configured.database.parent.iterdir())


def test_a_login_lifts_the_death_of_the_one_before_in_a_running_daemon_too(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    configured.run("auth", "login", "plan")
    primary.script(Endpoint.CHAT, Reply.error(401, code="token_invalidated"))
    configured.ran("job", "run", "digest")
    assert configured.credential("plan")["status"] == "dead"
    dead = configured.run("auth", "list")
    assert "plan house is dead: log in again with `promptd auth login plan house`" in dead.err

    with configured.daemon():
        primary.script(Endpoint.CHAT, Reply.text("fine"))
        assert configured.run("auth", "login", "plan").code == 0
        run = configured.ran("job", "run", "digest")
        assert configured.credential("plan")["status"] == "ok"

    assert run["state"] == "succeeded"


def test_slow_down_makes_every_later_poll_five_seconds_later(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.DEVICE, device())
    primary.script(Endpoint.TOKEN, Reply.token_error(400, "slow_down"), GRANTED)

    assert configured.run("auth", "login", "plan").code == 0

    first, second = polls(primary)
    assert second.received_at - first.received_at >= 5.2


def test_a_dropped_connection_is_no_answer_and_polling_goes_on_slower(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.DEVICE, device())
    primary.script(Endpoint.TOKEN, PENDING.cut(), Reply.raw(503), GRANTED)

    assert configured.run("auth", "login", "plan").code == 0

    first, second, third = (one.received_at for one in polls(primary))
    assert second - first >= 0.4
    assert third - second >= 0.8


def test_a_login_of_which_nobody_says_when_it_ends_is_told_so(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.DEVICE, device())
    primary.script(Endpoint.TOKEN, Reply.json(200, {"access_token": "only-access"}))

    said = configured.run("auth", "login", "plan")

    assert said.code == 0
    assert said.out.endswith(
        "logged in: plan house. It cannot be refreshed, since no refresh token was granted, and nobody says "
        "when it ends.\n"
    )


def test_an_endless_description_of_a_refusal_is_cut_before_anything_is_sought_in_it(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.DEVICE, device())
    primary.script(
        Endpoint.TOKEN, Reply.token_error(400, "invalid_grant", description="no " + "-eyJ" * 100_000)
    )

    said = configured.run("auth", "login", "plan")

    assert said.code == 1
    assert "HTTP 400, invalid_grant: no -eyJ" in said.err
    assert len(said.err) < 400


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply.token_error(400, "access_denied"), "the login was denied; nothing was stored"),
        (Reply.token_error(400, "expired_token"), "the code was not approved in time"),
        (
            Reply.token_error(400, "invalid_grant", description="who\x1b[2J?"),
            "HTTP 400, invalid_grant: who [2J?",
        ),
        (Reply.raw(404, {"content-type": "text/html"}, b"<html>"), "the login was not granted: HTTP 404"),
    ],
    ids=["denied", "expired", "an error with words", "a page"],
)
def test_a_login_that_is_not_granted_says_why_and_stores_nothing(
    configured: Workplace, primary: ThreadedLoopback, reply: Reply, told: str
) -> None:
    primary.script(Endpoint.DEVICE, device())
    primary.script(Endpoint.TOKEN, reply)

    said = configured.run("auth", "login", "plan")

    assert said.code == 1
    assert told in said.err
    assert len(polls(primary)) == 1
    assert configured.credential("plan")["status"] == "unreadable"


def test_nobody_waits_longer_than_the_code_is_good(configured: Workplace, primary: ThreadedLoopback) -> None:
    primary.script(Endpoint.DEVICE, device(expires_in=1))
    primary.script(Endpoint.TOKEN, PENDING)

    said = configured.run("auth", "login", "plan")

    assert (said.code, "the code was not approved in time" in said.err) == (1, True)
    assert len(polls(primary)) <= 6


@pytest.mark.parametrize(
    "reply",
    [
        Reply.token_error(401, "invalid_client", description="unknown client"),
        device(verification_uri="javascript:alert(1)"),
        device(user_code="\x1b]0;title\x07"),
        device(user_code="A" * 1_000_000),
        device(verification_uri="https://example.com/" + "a" * 1_000_000),
        device(device_code="a" * 1_000_000),
        Reply.raw(200, {}, b"[]"),
        Reply.raw(302, {"location": "https://example.com/"}),
    ],
    ids=[
        "refused", "no page", "an escape sequence", "an endless code", "an endless page", "an endless secret",
        "no object", "a redirect",
    ],
)  # fmt: skip
def test_a_device_endpoint_out_of_order_ends_the_login(
    configured: Workplace, primary: ThreadedLoopback, reply: Reply
) -> None:
    primary.script(Endpoint.DEVICE, reply)

    said = configured.run("auth", "login", "plan")

    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"promptd: no login could be begun at {primary.device_url}: HTTP ")
    assert polls(primary) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_gives_up_at_once_and_stores_nothing(
    configured: Workplace, primary: ThreadedLoopback, number: signal.Signals
) -> None:
    """Nor does it after the signals that end a session or a service."""
    primary.script(Endpoint.TOKEN, PENDING)
    words = [str(PROMPTD), "--config", str(configured.config), "auth", "login", "plan"]
    process = subprocess.Popen(
        words,
        cwd=configured.directory,
        env=configured.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    primary.wait_received(1, endpoint=Endpoint.TOKEN)

    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)

    assert process.returncode == 130
    assert errors == "promptd: the login was given up; nothing was stored\n"
    assert configured.credential("plan")["status"] == "unreadable"


def test_what_the_configuration_lacks_is_named(workplace: Workplace, primary: ThreadedLoopback) -> None:
    oauth = f'{{token_url: "{primary.token_url}"}}'
    workplace.configure(
        f"model: plan/m\nproviders:\n  plan: {{base_url: {primary.base_url}, oauth: {oauth}}}\n"
    )

    said = workplace.run("auth", "login", "plan")

    assert said.code == 78
    assert "providers.plan.oauth.client_id: a login needs it, and it is not set" in said.err
    assert "providers.plan.oauth.device_authorization_url: a login needs it" in said.err


def test_the_codex_login_is_pointed_to_its_import(workplace: Workplace) -> None:
    workplace.configure("model: codex/gpt-5.5\n")

    said = workplace.run("auth", "login", "codex")

    assert said.code == 78
    assert "`promptd auth import codex`" in said.err


def test_without_authlib_the_extra_is_named(configured: Workplace, primary: ThreadedLoopback) -> None:
    words = [
        sys.executable,
        "-c",
        WITHOUT_AUTHLIB,
        "--config",
        str(configured.config),
        "auth",
        "login",
        "plan",
    ]
    done = subprocess.run(
        words,
        cwd=configured.directory,
        env=configured.environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 69
    assert "pip install 'promptd[oauth]'" in done.stderr
    assert primary.requests == []


def test_a_removed_login_is_gone_with_its_marks_and_its_history_stays(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    configured.run("auth", "login", "plan")
    primary.script(Endpoint.CHAT, Reply.error(401, code="token_invalidated"))
    run = configured.ran("job", "run", "digest")

    said = configured.run("auth", "remove", "plan")

    assert (said.code, said.out) == (0, "plan house: its login is forgotten\n")
    assert configured.rows("SELECT * FROM tokens") == configured.rows("SELECT * FROM marks") == []
    assert configured.credential("plan")["status"] == "unreadable"
    assert configured.shown(run["id"])["attempts"] == run["attempts"]
    assert configured.run("auth", "remove", "plan").out == "plan house: nobody was logged in\n"


def test_a_key_is_not_removed_but_pointed_to(configured: Workplace) -> None:
    said = configured.run("auth", "remove", "zai")

    assert said.code == 2
    assert said.err.startswith("promptd: zai main is no login: its key is env:ZAI_KEY")
    assert "providers.zai.credentials" in said.err
    groq = configured.run("auth", "remove", "groq")
    assert (groq.code, "unset it" in groq.err) == (2, True)
    unknown = configured.run("auth", "login", "zai")
    assert (unknown.code, "zai has no OAuth login" in unknown.err) == (2, True)
