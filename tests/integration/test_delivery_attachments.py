"""What is said of a long text is true at every service: attached where its plugin sends that, else cut only.

Apprise's own plugins work here; only what carries a request away is replaced.
"""

import base64
import html
import io
import json
from typing import Any
from urllib.parse import unquote_plus

import pytest
import requests
from requests.adapters import HTTPAdapter

from jobs.delivery.apprise_child import fitted, notified, service_of

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
TEXT = "Grüße <b>&amp; 'all'</b>\n" * 3_000
COMMAND = "`promptd run output 7` prints it]"
ATTACHED = f"[cut here: the whole text has {len(TEXT):,} characters and is attached; {COMMAND}"
CUT = f"[cut here: the whole text has {len(TEXT):,} characters; {COMMAND}"
SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/"
ATTACHING = {
    "brevo": "brevo://abcd:user@example.org/to@example.org",
    "discord": f"discord://{'1' * 24}/{'a' * 64}",
    "mailersend": "mailersend://abcd:user@example.org/to@example.org",
    "postmark": "postmark://abcdef0123:from@example.org/to@example.org",
    "resend": "resend://abcd:user@example.org/to@example.org",
    "sendgrid": "sendgrid://abcd:from@example.org/to@example.org",
    "smtp2go": f"smtp2go://user@example.org/{'a' * 32}/to@example.org",
    "sparkpost": f"sparkpost://user@example.org/{'a' * 40}/to@example.org",
    "telegram": "tgram://123456789:ABCdefghijklmnopqrstuvwxyz01234567/12345/",
    "telegram, after it": "tgram://123456789:ABCdefghijklmnopqrstuvwxyz01234567/12345/?content=after",
    "telegram, as HTML": "tgram://123456789:ABCdefghijklmnopqrstuvwxyz01234567/12345/?format=html",
}
CUTTING = {
    "slack's webhooks": SLACK,
    "matrix as slack": f"matrixs://user:{'t' * 64}@localhost/?mode=slack",
    "matrix as matrix": f"matrixs://user:{'t' * 64}@localhost/?mode=matrix",
    "mattermost's webhooks": f"mmost://localhost/{'a' * 24}",
    "pushover": f"pover://{'u' * 30}@{'a' * 30}",
    "notifyre": "notifyre://abcdef0123456789/+15551112222",
    "webex's webhooks": f"wxteams://{'a' * 80}/",
    "mailgun": f"mailgun://user@example.org/{'a' * 32}-bbbbbbbb-bbbbbbbb/to@example.org",
    "a form": "form://localhost/",
    "json": "json://localhost/?:attachments=",
    "ntfy": "ntfy://localhost/topic",
    "sendgrid's templates": "sendgrid://abcd:from@example.org/to@example.org?template=digest",
}


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the bodies of the requests that services have sent, as they come."""
    bodies: list[str] = []

    def carry(_adapter: HTTPAdapter, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        body = request.body or b""
        bodies.append(body if isinstance(body, str) else body.decode())
        response = requests.Response()
        response.status_code, response.request, response.url = 200, request, request.url or ""
        response.raw = io.BytesIO(b"ok" if "hooks.slack.com" in response.url else b'{"ok": true}')
        return response

    monkeypatch.setattr(HTTPAdapter, "send", carry)
    return bodies


def _order(body: str = TEXT, **changes: object) -> dict[str, Any]:
    return {
        "body": body,
        "characters": len(body),
        "subject": "Well",
        "whole_text": "promptd run output 7",
        "seconds": 30,
        **changes,
    }


def _words(body: str) -> str:
    """Return what stands in a body, whichever way it was written."""
    try:
        return " ".join(_strings(json.loads(body)))
    except ValueError:
        return unquote_plus(body) if "=" in body[:40] else body


def _strings(value: Any) -> list[str]:
    match value:
        case dict() | list():
            inner = value.values() if isinstance(value, dict) else value
            return [text for each in inner for text in _strings(each)]
        case _:
            return [str(value)]


def _shown(said: str) -> str:
    """Return what a reader sees of a text in which HTML or Markdown is escaped."""
    return html.unescape(said).replace("\xa0", " ").replace("\\", "")


def _holds_the_whole(said: str) -> bool:
    return TEXT in said or base64.b64encode(TEXT.encode()).decode() in said


@pytest.mark.parametrize("name", ATTACHING)
def test_a_service_that_attaches_says_so_and_sends_the_whole_text(name: str, carried: list[str]) -> None:
    assert notified(service_of(ATTACHING[name]), _order())

    said = "\n".join(map(_words, carried))
    assert ATTACHED in _shown(said)
    assert _holds_the_whole(said)


@pytest.mark.parametrize("name", CUTTING)
def test_a_service_that_may_drop_an_attachment_names_the_command_alone(name: str, carried: list[str]) -> None:
    assert notified(service_of(CUTTING[name]), _order())

    said = "\n".join(map(_words, carried))
    assert CUT in _shown(said)
    assert "attached" not in said
    assert not _holds_the_whole(said)


def test_what_is_cut_already_or_too_large_for_a_mail_is_not_attached(carried: list[str]) -> None:
    postmark = service_of(ATTACHING["postmark"])
    assert notified(postmark, _order(characters=20_000_000))
    assert notified(postmark, _order("word " * 400_001))

    begun, large = (_shown(_words(body)) for body in carried)
    assert f"[cut here: the whole text has 20,000,000 characters; {COMMAND}" in begun
    assert f"[cut here: the whole text has 2,000,005 characters; {COMMAND}" in large


def _characters_written(service: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how long each text is that the service writes in its own way, as it does so."""
    lengths: list[int] = []
    write = service.dialect_convert

    def counted(text: str, *args: Any, **named: Any) -> Any:
        lengths.append(len(text))
        return write(text, *args, **named)

    monkeypatch.setattr(service, "dialect_convert", counted)
    return lengths


@pytest.mark.parametrize(("form", "unit"), [("text", "<"), ("markdown", "*_[a](b"), ("html", "word ")])
def test_the_longest_text_goes_in_few_pieces_whatever_a_service_writes_for_its_characters(
    form: str, unit: str, carried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slack has `&lt;` for `<`, and waits for 1.2 s before each piece. Most is never written so."""
    slack = service_of(f"{SLACK}?overflow=split&format={form}")
    slack.request_rate_per_sec = 0
    written = _characters_written(slack, monkeypatch)
    text = unit * (9_000_000 // len(unit))

    assert notified(slack, _order(text))

    assert 0 < sum(written) < len(text) / 2
    assert 4 <= len(carried) <= 12
    assert COMMAND in "".join(map(_shown, map(_words, carried)))


@pytest.mark.parametrize(("seconds", "most"), [(30, 10), (12, 5), (1, 1)])
def test_a_text_goes_in_no_more_pieces_than_there_is_time_for(seconds: int, most: int) -> None:
    slack = service_of(f"{SLACK}?overflow=split")

    body, attachment = fitted(slack, _order("word " * 100_000, seconds=seconds))

    assert attachment is None
    assert (most - 1) * 35_000 < len(body) <= most * 35_000
