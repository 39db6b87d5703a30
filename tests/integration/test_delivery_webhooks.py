"""Webhooks: signed, the same at every try, judged by their status, and no larger than they may be."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from support.delivering import KEY, NOW, literal, message, tools_with
from support.hostile import CHUNKED, endless, in_chunks, redirect, said, stalled, trickled
from support.http_peer import HttpPeer, Taken, answer

from jobs import clock
from jobs.credential import SecretReference
from jobs.delivery.message import Message, message_of_test
from jobs.delivery.send import Tools, send
from jobs.delivery.target import WebhookTarget
from jobs.delivery.webhook import document, signed_headers
from jobs.errors import Undeliverable

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)
TAKEN = said(answer(204))


def hook(peer: HttpPeer, *, timeout: timedelta = 60 * SECOND, **changes: object) -> WebhookTarget:
    return WebhookTarget("hook", literal(peer.url()), timeout=timeout, **changes)  # type: ignore[arg-type]


def _hmac(key: bytes, signed: bytes) -> bytes:
    """Compute HMAC-SHA256 as RFC 2104 writes it, with nothing but the hash."""
    padded = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(each ^ 0x36 for each in padded) + signed).digest()
    return hashlib.sha256(bytes(each ^ 0x5C for each in padded) + inner).digest()


def _signature(taken: Taken, key: bytes) -> str:
    head = f"{taken.headers['webhook-id']}.{taken.headers['webhook-timestamp']}."
    return "v1," + base64.b64encode(_hmac(key, head.encode() + taken.body)).decode()


async def _refused(target: WebhookTarget, tools: Tools, what: Message | None = None) -> Undeliverable:
    with pytest.raises(Undeliverable) as refused:
        await send(target, what or message(), tools=tools)
    return refused.value


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("whsec_AGJpbmFyef8ga2V5IG9mIDIzIGJ5dGVz", b"\0binary\xff key of 23 bytes"),
        ("any text will do", b"any text will do"),
        ("more than 64 bytes, " * 4 + "yes", b"more than 64 bytes, " * 4 + b"yes"),
    ],
    ids=["whsec", "text", "long"],
)  # fmt: skip
async def test_what_is_sent_is_signed_with_the_secret(secret: str, key: bytes) -> None:
    async with HttpPeer(TAKEN) as peer, tools_with(HOOK_SECRET=secret) as tools:
        target = hook(peer, secret=SecretReference("env", "HOOK_SECRET"))
        await send(target, message("Grüße\n"), tools=tools)

    taken = peer.taken[0]
    assert (taken.method, taken.path) == ("POST", "/in")
    assert taken.headers["content-type"] == "application/json"
    assert taken.headers["idempotency-key"] == taken.headers["webhook-id"] == KEY
    assert taken.headers["webhook-signature"] == _signature(taken, key)
    assert abs(int(taken.headers["webhook-timestamp"]) - clock.utcnow().timestamp()) < 60


def test_the_signature_is_that_of_the_standards_own_example() -> None:
    """The example of the reference libraries: github.com/standard-webhooks/standard-webhooks."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    sent = datetime.fromtimestamp(1614265330, UTC)

    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', key, now=sent)

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_run_is_told_with_its_facts() -> None:
    async with HttpPeer(TAKEN) as peer, tools_with() as tools:
        await send(hook(peer), message("All is well.", title="Well"), tools=tools)

    told = json.loads(peer.taken[0].body)
    assert told["type"] == "run.succeeded"
    assert datetime.fromisoformat(told["timestamp"]) == NOW + timedelta(seconds=9)
    assert told["data"]["key"] == KEY
    assert (told["data"]["job"], told["data"]["run_id"]) == ("morning-digest", 7)
    assert (told["data"]["subject"], told["data"]["text"], told["data"]["cut"]) == (
        "Well",
        "All is well.",
        False,
    )
    assert told["data"]["served"] == {"provider": "zai", "model": "glm-5.1"}
    assert "webhook-signature" not in peer.taken[0].headers


async def test_a_server_that_fails_hangs_and_then_accepts_gets_the_same_with_the_same_key() -> None:
    ways = (said(answer(500, body=b"no room")), stalled(), TAKEN)
    async with HttpPeer(*ways) as peer, tools_with() as tools:
        failed = await _refused(hook(peer), tools)
        hung = await _refused(hook(peer, timeout=3 * SECOND), tools)
        await send(hook(peer), message(), tools=tools)

    assert (str(failed), failed.permanent) == ("HTTP 500: no room", False)
    assert (str(hung), hung.permanent) == ("127.0.0.1 gave no answer within 3 s", False)
    assert {(taken.headers["webhook-id"], taken.body) for taken in peer.taken} == {(KEY, peer.taken[0].body)}
    assert len(peer.taken) == 3


@pytest.mark.parametrize(
    ("said_by_it", "why", "permanent", "wait"),
    [
        (answer(410, body=b"gone"), "HTTP 410: gone", True, None),
        (redirect(301, "https://else.example.org/T0K3N-of-it"), "which is not followed", True, None),
        (redirect(307, "http://169.254.169.254/"), "which is not followed", True, None),
        (answer(404), "HTTP 404", False, None),
        (answer(401, body=b"<b>no</b>\n\x1b[2J"), "HTTP 401: <b>no</b> [2J", False, None),
        (answer(429, "retry-after: 120"), "HTTP 429", False, 120),
        (answer(503, "retry-after: 999999999999"), "HTTP 503", False, 86_400),
        (answer(503, "retry-after: -5"), "HTTP 503", False, None),
        (answer(503, "retry-after: soon"), "HTTP 503", False, None),
        (b"HTTP/1.1 nonsense\r\n\r\n", "could not be asked", False, None),
        (b"", "could not be asked", False, None),
    ],
)
async def test_what_a_server_says_decides_whether_it_is_asked_again(
    said_by_it: bytes, why: str, permanent: bool, wait: float | None
) -> None:
    async with HttpPeer(said(said_by_it)) as peer, tools_with() as tools:
        refused = await _refused(hook(peer), tools)

        assert peer.connections == 1
    assert why in str(refused)
    assert "T0K3N" not in str(refused)
    assert refused.permanent is permanent
    assert refused.retry_after == (timedelta(seconds=wait) if wait else None)


async def test_a_date_to_come_back_at_is_respected() -> None:
    later = (clock.utcnow() + timedelta(hours=2)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    async with HttpPeer(said(answer(503, f"retry-after: {later}"))) as peer, tools_with() as tools:
        refused = await _refused(hook(peer), tools)

    assert refused.retry_after is not None
    assert timedelta(minutes=118) < refused.retry_after <= timedelta(hours=2)


@pytest.mark.parametrize(
    "way",
    [
        said(answer(200, body=b"ok")),
        endless(CHUNKED, in_chunks(b" " * 4096)),
        stalled(CHUNKED),
        said(b"HTTP/1.1 202 Accepted\r\ncontent-length: 10000000000\r\n\r\n"),
    ],
    ids=["plain", "without end", "without a body", "ten gigabytes"],
)
async def test_a_message_is_delivered_when_its_status_says_so_whatever_follows(way: object) -> None:
    async with HttpPeer(way) as peer, tools_with() as tools:  # type: ignore[arg-type]
        await send(hook(peer), message(), tools=tools)

        assert len(peer.taken) == 1


async def test_a_server_that_drips_its_status_is_given_up() -> None:
    async with HttpPeer(trickled(answer(200))) as peer, tools_with() as tools:
        refused = await _refused(hook(peer, timeout=3 * SECOND), tools)

    assert str(refused) == "127.0.0.1 gave no answer within 3 s"


@pytest.mark.parametrize("piece", ["a", "ü", "\N{GRINNING FACE}", "\x01", '"', "\n"])
def test_a_long_text_is_cut_to_a_document_of_a_megabyte_that_says_so(piece: str) -> None:
    body = document(message(piece * 1_500_000, title="Long"))

    data = json.loads(body)["data"]
    assert 999_900 < len(body) <= 1_000_000
    assert data["cut"] is True
    assert data["text"].startswith(piece)
    assert data["text"].endswith("characters; `promptd run output 7` prints it]\n")


async def test_hostile_text_arrives_as_text() -> None:
    hostile = 'Hello\r\nX-Evil: 1 {{ 7 * 7 }} {job} \x1b[2J\ud800\0 "}]'
    async with HttpPeer(TAKEN) as peer, tools_with() as tools:
        await send(hook(peer), message(hostile, title=hostile, error_message=hostile), tools=tools)

    data = json.loads(peer.taken[0].body)["data"]
    assert data["text"] == 'Hello\r\nX-Evil: 1 {{ 7 * 7 }} {job} \x1b[2J\ufffd\ufffd "}]'
    assert data["subject"].isprintable()
    assert "x-evil" not in peer.taken[0].headers


async def test_headers_go_along_and_cannot_take_the_place_of_ours() -> None:
    given = {"Authorization": "Bearer t0k3n-of-ours", "WEBHOOK-ID": "theirs", "X-Team": "ops"}
    headers = {name: literal(value) for name, value in given.items()}
    async with HttpPeer(TAKEN) as peer, tools_with() as tools:
        await send(hook(peer, headers=headers), message(), tools=tools)

    taken = peer.taken[0].headers
    assert (taken["authorization"], taken["x-team"], taken["webhook-id"]) == (
        "Bearer t0k3n-of-ours",
        "ops",
        KEY,
    )


async def test_no_secret_is_told_by_an_error_whatever_the_server_quotes() -> None:
    quoted = b"no hook /in/Ab1Cd2Ef3 for t0k3n-of-ours, whsec_c2VjcmV0LXNlY3JldA== or c2VjcmV0LXNlY3JldA=="
    target = WebhookTarget(
        "hook",
        SecretReference("env", "URL"),
        headers={"Authorization": literal("Bearer t0k3n-of-ours")},
        secret=SecretReference("env", "KEY"),
    )
    async with (
        HttpPeer(said(answer(403, body=quoted))) as peer,
        tools_with(URL=peer.url("/in/Ab1Cd2Ef3"), KEY="whsec_c2VjcmV0LXNlY3JldA==") as tools,
    ):
        refused = await _refused(target, tools)

    assert str(refused) == "HTTP 403: no hook /in/[secret] for [secret], [secret] or [secret]"


async def test_plain_words_that_are_written_out_stay_in_texts_and_a_header_kept_elsewhere_does_not() -> None:
    headers = {
        "X-Team": literal("operations"),
        "X-Tenant": literal("Zx81Qq0aBc93"),
        "X-Env": SecretReference("env", "ENV"),
    }
    async with HttpPeer(TAKEN) as peer, tools_with(ENV="production", URL=peer.url()) as tools:
        await send(hook(peer, headers=headers), message(), tools=tools)
        await send(WebhookTarget("hook", SecretReference("env", "URL")), message(), tools=tools)
        told = tools.redactor.clean(f"operations at {peer.url('/index')}: production, Zx81Qq0aBc93")

    assert told == f"operations at {peer.url('/index')}: [secret], [secret]"


async def test_a_secret_that_the_message_quotes_is_not_sent() -> None:
    async with HttpPeer(TAKEN) as peer, tools_with(OTHER="the-key-of-a-provider") as tools:
        tools.secrets.read(SecretReference("env", "OTHER"))
        await send(hook(peer), message("it is the-key-of-a-provider"), tools=tools)

    assert json.loads(peer.taken[0].body)["data"]["text"] == "it is [secret]"
    assert b"the-key-of-a-provider" not in peer.taken[0].body


async def test_a_secret_in_a_title_or_an_error_is_not_sent_and_names_stay() -> None:
    secret = "morning-digest"  # which is a name as well: receivers go by that
    failed = {"state": "failed", "error_class": "auth", "error_message": f"no {secret} here"}
    async with HttpPeer(TAKEN) as peer, tools_with(OTHER=secret) as tools:
        tools.secrets.read(SecretReference("env", "OTHER"))
        await send(hook(peer), message("well", title=f"All of {secret} is morning"), tools=tools)
        await send(hook(peer), message(**failed), tools=tools)

    told, error = (json.loads(each.body)["data"] for each in peer.taken)
    assert [told["job"], told["title"]] == [secret, "All of [secret] is morning"]
    assert error["error"] == {"class": "auth", "message": "no [secret] here"}


async def test_a_reference_that_is_empty_is_tried_again_and_a_broken_secret_is_not() -> None:
    async with HttpPeer(TAKEN) as peer, tools_with(KEY="whsec_no base64!") as tools:
        unset = await _refused(WebhookTarget("hook", SecretReference("env", "NONE")), tools)
        broken = await _refused(hook(peer, secret=SecretReference("env", "KEY")), tools)

        assert peer.connections == 0
    assert (str(unset), unset.permanent) == ("the variable NONE is not set", False)
    assert broken.permanent
    assert "base64" in str(broken)


async def test_a_test_is_told_as_one() -> None:
    async with HttpPeer(TAKEN) as peer, tools_with() as tools:
        await send(hook(peer), message_of_test("hook", KEY, now=NOW), tools=tools)

    assert json.loads(peer.taken[0].body)["type"] == "test"
