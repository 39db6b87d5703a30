"""`promptd auth login --browser`: a code comes back over loopback, from our own login and nobody else's."""

import base64
import hashlib
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from support.workplace import PATIENCE, PROMPTD, Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: plan/m
providers:
  plan:
    base_url: {url}
    credentials:
      - {{label: house, oauth: {{token_url: "{token}", client_id: app, scopes: [models],
                                 authorization_url: "https://example.com/authorize?tenant=house"}}}}
jobs:
  - {{name: digest, schedule: every 1d, prompt: "Summarise."}}
"""
Fields = dict[str, str]


@pytest.fixture
def configured(workplace: Workplace, primary: ThreadedLoopback) -> Workplace:
    """A workplace whose provider knows logins in a browser."""
    workplace.configure(CONFIG.format(url=primary.base_url, token=primary.token_url))
    return workplace


@contextmanager
def logging_in(workplace: Workplace) -> "Iterator[tuple[subprocess.Popen[str], Fields]]":
    """Begin a login; yield the process, and the fields of the page that it wants to be opened."""
    words = [str(PROMPTD), "--config", str(workplace.config), "auth", "login", "plan", "--browser"]
    process = subprocess.Popen(
        words,
        cwd=workplace.directory,
        env=workplace.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        page = urlsplit(process.stdout.readline().strip())
        assert page.geturl().startswith("https://example.com/authorize?tenant=house&")
        yield process, {name: values[0] for name, values in parse_qs(page.query).items()}
    finally:
        process.kill()
        process.communicate()


def visit(fields: Fields, *, path: str | None = None, **query: str) -> int:
    """Come back as a browser does; return the status."""
    address = fields["redirect_uri"] if path is None else re.sub("/callback$", path, fields["redirect_uri"])
    try:
        with urllib.request.urlopen(f"{address}?{urlencode(query)}", timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def test_a_code_is_exchanged_with_the_verifier_of_its_challenge(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.TOKEN, Reply.tokens(access_token="new-access", refresh_token="first"))

    with logging_in(configured) as (process, fields):
        assert (fields["response_type"], fields["client_id"], fields["scope"]) == ("code", "app", "models")
        assert visit(fields, state=fields["state"], code="the-code") == 200
        out, err = process.communicate(timeout=PATIENCE)
    run = configured.ran("job", "run", "digest")

    assert (process.returncode, err) == (0, "")
    assert out.endswith("logged in: plan house.\n")
    (asked,) = primary.received(Endpoint.TOKEN)
    form = asked.form()
    digest = hashlib.sha256(form.pop("code_verifier").encode()).digest()
    assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == fields["code_challenge"]
    assert fields["code_challenge_method"] == "S256"
    assert form == {
        "grant_type": "authorization_code",
        "code": "the-code",
        "redirect_uri": fields["redirect_uri"],
        "client_id": "app",
    }
    assert (run["state"], run["served"]["credential"]) == ("succeeded", "house")


def test_a_visitor_of_another_login_is_turned_away_and_ours_is_still_waited_for(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    """A page elsewhere that guesses the port brings a code of its own account, or rubbish."""
    primary.script(Endpoint.TOKEN, Reply.tokens(access_token="new-access", refresh_token="first"))
    with logging_in(configured) as (process, fields):
        where = urlsplit(fields["redirect_uri"])
        assert where.hostname == "127.0.0.1"
        assert visit(fields, state="guessed", code="planted") == 400
        assert visit(fields, code="planted") == 400
        assert visit(fields, path="/favicon.ico", state=fields["state"]) == 404
        for rubbish in (b"\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n", b"x" * 70_000, b""):
            door = where.hostname, where.port or 0
            with socket.create_connection(door, timeout=PATIENCE) as stranger, suppress(ConnectionError):
                stranger.sendall(rubbish)  # he may be turned away before he has said it all
        assert visit(fields, state=fields["state"], code="ours") == 200
        _, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, err) == (0, "")
    assert [asked.form()["code"] for asked in primary.received(Endpoint.TOKEN)] == ["ours"]


@pytest.mark.parametrize(
    ("back", "told"),
    [
        ({"error": "access_denied"}, "the login was denied; nothing was stored"),
        ({"error": "server_error\x1b[2J"}, "the login was not granted: server_error[2J; nothing was stored"),
        ({"code": "stale"}, "the login was not granted: HTTP 400, invalid_grant"),
    ],
    ids=["denied", "an error", "a code that is refused"],
)
def test_a_login_that_is_not_granted_says_why(
    configured: Workplace, primary: ThreadedLoopback, back: Fields, told: str
) -> None:
    primary.script(Endpoint.TOKEN, Reply.token_error(400, "invalid_grant"))

    with logging_in(configured) as (process, fields):
        visit(fields, state=fields["state"], **back)
        _, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, err) == (1, f"promptd: {told}\n")
    assert configured.credential("plan")["status"] == "unreadable"
