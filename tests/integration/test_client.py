"""The way out: what a request carries, how an answer comes back, and why none did."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.hang_guard import wait_ends
from support.ledger import NOW
from support.wire import nobodys_port

from jobs import clock
from jobs.attempt import Attempt, Purpose
from jobs.credential import Credential, CredentialKind
from jobs.names import ProviderName
from jobs.providers.answer import Answer, Origin, TransportFailure
from jobs.providers.classify import completion_of
from jobs.providers.client import LARGEST_BODY, Client
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.registry import Provider
from jobs.request import ApiMode, Request
from jobs.secret import Secret
from jobs.target import Target

pytestmark = pytest.mark.anyio
NAME = ProviderName("box")
MODES = {ApiMode.CHAT_COMPLETIONS: Endpoint.CHAT, ApiMode.RESPONSES: Endpoint.RESPONSES}


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    """Yield a provider."""
    async with Loopback() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Yield a client."""
    client = Client()
    yield client
    await client.close()


def attempt_at(url: str, mode: ApiMode = ApiMode.CHAT_COMPLETIONS, *, key: str | None = "key") -> Attempt:
    """Return an attempt that asks a URL."""
    return Attempt(
        id=1,
        target=Target(NAME, "m", url, mode),
        target_index=0,
        credential=Credential(NAME, "key", CredentialKind.KEY),
        purpose=Purpose.MAIN,
        base_url=url,
        api_mode=mode,
        started_at=NOW,
        secret=Secret(key) if key else None,
        fingerprint="f1",
        account_id="account-1",
    )


def box(mode: ApiMode = ApiMode.CHAT_COMPLETIONS) -> Provider:
    """Return a provider without peculiarities."""
    return Provider(NAME, None, mode, ())


async def ask(
    client: Client, url: str, *, within: float = 60, mode: ApiMode = ApiMode.CHAT_COMPLETIONS
) -> Answer:
    """Ask one thing."""
    request = Request("What is new?")
    return await client.ask(attempt_at(url, mode), box(mode), request, timeout=timedelta(seconds=within))


def why(answer: Answer) -> tuple[int | None, TransportFailure | None, bool]:
    """Return what tells one missing answer from another."""
    return answer.status, answer.failure, answer.left


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_the_same_document_streamed_or_not(
    client: Client, server: Loopback, mode: ApiMode, stream: bool
) -> None:
    """In both modes, with its usage."""
    server.script(MODES[mode], Reply.text("fine", usage=(7, 3)))

    answer = await client.ask(
        attempt_at(server.base_url, mode),
        replace(box(mode), stream=stream),
        Request("What is new?"),
        timeout=timedelta(minutes=1),
    )

    (received,) = server.requests
    assert bool(received.document().get("stream")) is stream
    completion = completion_of(answer)
    assert (answer.status, completion.text) == (200, "fine")
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (7, 3)


async def test_a_stream_that_trickles_is_read_to_its_end(client: Client, server: Loopback) -> None:
    """Events may be cut anywhere."""
    server.script(Endpoint.CHAT, Reply.text("a long answer, cut into pieces").slowly(7, 0.001))
    provider = replace(box(), stream=True)

    answer = await client.ask(
        attempt_at(server.base_url), provider, Request("?"), timeout=timedelta(minutes=1)
    )

    assert completion_of(answer).text == "a long answer, cut into pieces"


async def test_a_request_carries_what_its_provider_wants(client: Client, server: Loopback) -> None:
    """Its own headers, the account's, and the key; no more."""
    provider = replace(box(), headers={"x-title": "promptd"}, account_header="chatgpt-account-id")

    await client.ask(attempt_at(server.base_url), provider, Request("?"), timeout=timedelta(minutes=1))

    headers = server.requests[0].by_name
    assert headers["authorization"] == "Bearer key"
    assert (headers["x-title"], headers["chatgpt-account-id"]) == ("promptd", "account-1")
    assert {name for name in headers if not name.startswith("x-stainless-")} <= {
        "accept", "accept-encoding", "authorization", "chatgpt-account-id", "connection", "content-length",
        "content-type", "host", "user-agent", "x-title",
    }  # fmt: skip


async def test_a_server_without_keys_gets_a_placeholder(client: Client, server: Loopback) -> None:
    """Never somebody else's key."""
    attempt = attempt_at(server.base_url, key=None)

    await client.ask(attempt, box(), Request("?"), timeout=timedelta(minutes=1))

    assert server.requests[0].key == "no-key-required"


async def test_the_sdks_own_variables_never_reach_a_provider(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OPENAI_*` is meant for OpenAI, by somebody else's configuration."""
    for name, value in {
        "OPENAI_API_KEY": "marker-key",
        "OPENAI_ORG_ID": "marker-org",
        "OPENAI_PROJECT_ID": "marker-project",
        "OPENAI_CUSTOM_HEADERS": "x-marker: marker-header",
        "OPENAI_BASE_URL": "http://marker.invalid/v1",
        "OPENAI_ADMIN_KEY": "marker-admin",
    }.items():
        monkeypatch.setenv(name, value)
    client = Client()

    answer = await ask(client, server.base_url)
    await client.close()

    assert answer.status == 200
    assert "marker" not in str(server.requests[0].headers)


async def test_cookies_are_not_kept(client: Client, server: Loopback) -> None:
    """They would tie two credentials, or two providers on one host, to each other."""
    server.script(
        Endpoint.CHAT, Reply.json(500, {}, {"set-cookie": "session=marker; Path=/"}), Reply.text("x")
    )

    for _ in range(2):
        await ask(client, server.base_url)

    assert [one.by_name.get("cookie") for one in server.requests] == [None, None]


async def test_a_redirect_is_an_answer(client: Client, server: Loopback) -> None:
    """Keys go to the target's host only."""
    elsewhere = Reply.raw(307, {"location": f"{server.origin}/elsewhere/v1/chat/completions"})
    server.script(Endpoint.CHAT, elsewhere)

    assert (await ask(client, server.base_url)).status == 307
    assert len(server.requests) == 1


async def test_a_request_is_sent_once(client: Client, server: Loopback) -> None:
    """The SDK's own retries are off, whatever the server asks for."""
    server.script(Endpoint.CHAT, Reply.error(503, headers={"x-should-retry": "true", "retry-after": "0"}))

    answer = await ask(client, server.base_url)

    assert (answer.status, len(server.requests)) == (503, 1)
    assert answer.headers["retry-after"] == "0"


async def test_a_body_beyond_the_limit_is_no_answer(client: Client, server: Loopback) -> None:
    """It is not read to its end."""
    server.script(
        Endpoint.CHAT, Reply.raw(200, {"content-type": "application/json"}, b" " * (LARGEST_BODY + 1))
    )

    answer = await ask(client, server.base_url)

    assert len(answer.body) == 0


SLOW: dict[str, Callable[[], Reply]] = {
    "silent": lambda: Reply.text("fine").silent(),
    "a byte now and then": lambda: Reply.text("fine").slowly(1, 0.05),
    "an endless head": lambda: Reply.text("fine").slowly(1, 0.05, head=True),
}


@pytest.mark.parametrize("slow", SLOW)
async def test_a_server_that_takes_too_long_is_a_timeout(client: Client, server: Loopback, slow: str) -> None:
    """Whatever it trickles meanwhile. It has answered before, so that there is a connection to it."""
    server.script(Endpoint.CHAT, Reply.text("quick"), SLOW[slow]())
    await ask(client, server.base_url)

    async with wait_ends():
        answer = await ask(client, server.base_url, within=2)

    assert why(answer) == (None, TransportFailure.TIMEOUT, True)


@pytest.fixture
def unused_url() -> Iterator[str]:
    """Yield a URL that nobody listens on."""
    with nobodys_port() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["", "http://no-such-host.invalid"], ids=["unused port", "no such host"])
async def test_a_server_that_is_not_there_is_a_connection_that_never_left(
    client: Client, unused_url: str, host: str
) -> None:
    """Nothing was sent: it cannot have been paid."""
    assert why(await ask(client, f"{host or unused_url}/v1")) == (None, TransportFailure.CONNECTION, False)


@pytest.mark.parametrize("after", [0, 5])
async def test_a_connection_that_is_cut_may_have_been_heard(
    client: Client, server: Loopback, after: int
) -> None:
    """Before the first byte, or within the body."""
    server.script(Endpoint.CHAT, Reply.text("fine").cut(after))

    answer = await ask(client, server.base_url)

    assert why(answer) == (None, TransportFailure.CONNECTION, True)


async def test_a_stale_connection_of_the_pool_is_no_failure_of_the_server(
    client: Client, server: Loopback
) -> None:
    """A server may close what it has answered: the next request finds another connection."""
    server.script(
        Endpoint.CHAT, Reply.raw(200, {"connection": "close", "content-type": "application/json"}, b"{}")
    )

    assert [(await ask(client, server.base_url)).status for _ in range(3)] == [200, 200, 200]


@pytest.fixture
async def untrusted(tmp_path: Path) -> AsyncIterator[str]:
    """Yield the URL of a TLS server whose certificate nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = clock.utcnow()
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    path = tmp_path / "server.pem"
    path.write_bytes(key.private_bytes(pem, form, plain) + certificate.public_bytes(pem))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "localhost", 0, ssl=context)
    yield f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
    server.close()


async def test_a_certificate_that_does_not_verify_is_told_apart(client: Client, untrusted: str) -> None:
    """No second request mends it; and nothing was sent to whoever that is."""
    assert why(await ask(client, untrusted)) == (None, TransportFailure.TLS, False)


@pytest.mark.parametrize(
    ("prompt", "key", "headers", "words"),
    [
        ("\ud800", "key", {}, "characters that are no text"),
        ("hi", "a\nb", {}, "the header Authorization holds"),
        ("hi", "key", {"X-Title": "caf\u00e9"}, "the header X-Title holds"),
        ("hi", "key", {"X-Title": "a\r\nX-Other: b"}, "the header X-Title holds"),
    ],
)
async def test_what_cannot_be_written_is_no_failure_of_the_server(
    client: Client, server: Loopback, prompt: str, key: str, headers: dict[str, str], words: str
) -> None:
    """And what is said of it quotes neither key nor value."""
    provider = replace(box(), headers=headers)
    asked = client.ask(attempt_at(server.base_url, key=key), provider, Request(prompt), timeout=timedelta(5))
    answer = await asked

    assert why(answer) == (None, TransportFailure.UNSENDABLE, False)
    assert words in answer.detail
    assert "caf" not in answer.detail
    assert server.requests == []


async def test_a_form_goes_to_a_token_endpoint_in_the_same_way(
    client: Client, server: Loopback, unused_url: str
) -> None:
    """With the same kinds of failure, and its own origin."""
    second = timedelta(seconds=1)

    granted = await client.post_form(server.token_url, {"grant_type": "refresh_token"}, timeout=60 * second)
    server.script(Endpoint.TOKEN, Reply.text("").silent())
    lost = await client.post_form(server.token_url, {}, timeout=2 * second)
    refused = await client.post_form(unused_url, {}, timeout=60 * second)

    assert (granted.status, granted.origin) == (400, Origin.TOKEN)
    assert (lost.failure, lost.left, lost.origin) == (TransportFailure.TIMEOUT, True, Origin.TOKEN)
    assert (refused.failure, refused.left) == (TransportFailure.CONNECTION, False)
