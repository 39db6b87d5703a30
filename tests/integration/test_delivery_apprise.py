"""Apprise in its child: mails by a real SMTP server, long texts, servers that hang, secrets that stay."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.delivering import certificate, literal, message, tools_with
from support.hang_guard import wait_ends
from support.hostile import said, stalled
from support.http_peer import HttpPeer, answer
from support.mail_peer import HANGS, MailPeer

from jobs.credential import SecretReference
from jobs.delivery.apprise import environment
from jobs.delivery.apprise_child import fitted, service_of
from jobs.delivery.message import Message
from jobs.delivery.send import Tools, send
from jobs.delivery.target import AppriseTarget
from jobs.errors import Undeliverable
from jobs.secret import Secret

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),  # a plugin of Apprise's
]
TELEGRAM = "tgram://123456789:ABCdefghijklmnopqrstuvwxyz01234567/12345/"


def to(url: str, *, seconds: float = 300) -> AppriseTarget:
    return AppriseTarget("ops", literal(url), timeout=timedelta(seconds=seconds))


async def _refused(target: AppriseTarget, tools: Tools, what: Message | None = None) -> Undeliverable:
    with pytest.raises(Undeliverable) as refused:
        await send(target, what or message(), tools=tools)
    return refused.value


async def test_a_mail_arrives_as_the_model_wrote_it_and_a_subject_adds_no_header() -> None:
    text = "# Grüße\n\n<b>snake_case</b> *{{ 7 * 7 }}* {job} \ud800\0\nBcc: everybody@example.org"
    subject = "Well\r\nBcc: everybody@example.org\0"
    async with MailPeer() as peer, tools_with() as tools:
        await send(to(peer.url()), message(text, title=subject), tools=tools)

    mail = peer.mails[0]
    assert mail["subject"] == "Well Bcc: everybody@example.org"
    assert mail["bcc"] is None
    assert peer.envelopes[0].rcpt_tos == ["ops@example.org"]
    assert mail.get_content_type() == "text/plain"
    expected = "# Grüße\n\n<b>snake_case</b> *{{ 7 * 7 }}* {job} \ufffd\ufffd\nBcc: everybody@example.org"
    assert mail.get_content().replace("\r\n", "\n").strip() == expected


async def test_a_mail_is_delivered_also_where_a_secret_is_a_word_of_the_childs_answer() -> None:
    words = ("delivered", "permanent", '{"delivered"')
    async with MailPeer() as peer, tools_with() as tools:
        tools.redactor.learn(Secret(word) for word in words)
        await send(to(peer.url()), message(), tools=tools)

    assert len(peer.mails) == 1


async def test_a_mail_server_that_refuses_hangs_and_then_accepts_is_asked_again() -> None:
    async with MailPeer("451 try later") as peer, tools_with() as tools:
        refused = await _refused(to(peer.url()), tools)
        peer.say(HANGS)
        hung = await _refused(to(peer.url(), seconds=3), tools)
        peer.say("250 taken")
        await send(to(peer.url()), message(), tools=tools)

    assert (refused.permanent, hung.permanent) == (False, False)
    assert "451" in str(refused)
    assert str(hung) == "Apprise had not ended after 3 s and was killed; raise its `timeout`"
    assert len(peer.mails) == 1


async def test_neither_the_list_of_processes_nor_an_environment_shows_a_secret() -> None:
    """The child is looked at while a server lets it hang; it ends with the delivery that is cancelled."""
    login = ("promptd", "hunter22-of-ours")
    environ = {"OTHER_SECRET": "another-secret", "APPRISE_PLUGIN_PATH": "/tmp", "LANG": "C.UTF-8"}
    async with (
        MailPeer(HANGS, login=login) as peer,
        tools_with(**environ, OPS=peer.url(login=f"{':'.join(login)}@")) as tools,
    ):
        target = AppriseTarget("ops", SecretReference("env", "OPS"), timeout=timedelta(minutes=5))
        sending = asyncio.create_task(send(target, message("a text of ours"), tools=tools))
        async with wait_ends():
            await peer.is_asked.wait()
        child = _child()
        shown = (child / "cmdline").read_bytes() + (child / "environ").read_bytes()
        limits = (child / "limits").read_text()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    assert b"apprise_child" in shown
    for secret in (login[1], f":{peer.port}", "another-secret", "a text of ours", "PLUGIN"):
        assert secret.encode() not in shown
    soft = {line[:25].strip(): line[25:].split()[:2] for line in limits.splitlines()}
    assert soft["Max address space"] == [str(2 * 1024**3)] * 2
    assert soft["Max core file size"] == ["0", "0"]
    async with wait_ends():
        while child.exists():
            await asyncio.sleep(0.01)


async def test_a_child_whose_starter_has_gone_ends_by_itself() -> None:
    """A second after its time; nobody kills it here."""
    async with HttpPeer(stalled()) as peer:
        order = {"url": f"json://127.0.0.1:{peer.port}/", "subject": "Well", "body": "text", "seconds": 0}
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobs.delivery.apprise_child"), stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        try:
            async with wait_ends():
                await child.communicate(json.dumps({**order, "characters": 4, "whole_text": ""}).encode())
        finally:
            if child.returncode is None:
                child.kill()

    assert child.returncode == -signal.SIGALRM


def _child() -> Path:
    """Return the only child of this process that is Apprise's."""
    mine = f"\nPPid:\t{os.getpid()}\n"
    children = [each for each in Path("/proc").glob("[0-9]*/status") if mine in _read(each)]
    found = [each.parent for each in children if "apprise_child" in _read(each.parent / "cmdline")]
    assert len(found) == 1
    return found[0]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # it has ended meanwhile


async def test_a_login_that_is_refused_is_told_without_its_password() -> None:
    login = ("promptd", "hunter22-of-ours")
    async with MailPeer(login=login) as peer, tools_with() as tools:
        await send(to(peer.url(login="promptd:hunter22-of-ours@")), message(), tools=tools)
        refused = await _refused(to(peer.url(login="promptd:wr0ng-of-ours@")), tools)

    assert len(peer.mails) == 1
    assert "535" in str(refused)
    assert "wr0ng" not in str(refused)
    assert not refused.permanent


async def test_mail_by_tls_goes_only_to_a_server_that_is_trusted(tmp_path: Path) -> None:
    context, trusted = certificate(tmp_path, "127.0.0.1")
    async with MailPeer(tls=context) as peer:
        async with tools_with() as tools:
            refused = await _refused(to(peer.url()), tools)
        async with tools_with(SSL_CERT_FILE=str(trusted)) as tools:
            await send(to(peer.url()), message(), tools=tools)

    assert "certificate verify failed" in str(refused).lower()
    assert len(peer.mails) == 1


async def test_a_text_that_is_too_long_for_a_mail_is_attached_whole() -> None:
    text = "Grüße, " * 30_000
    async with MailPeer() as peer, tools_with() as tools:
        await send(to(peer.url()), message(text), tools=tools)

    (attached,) = peer.mails[0].iter_attachments()
    assert attached.get_filename() == "answer.md"
    assert attached.get_content_type() == "text/markdown"
    assert attached.get_payload(decode=True) == text.encode()
    body = peer.mails[0].get_body()
    assert body is not None
    assert "[cut here: the whole text has 210,000 characters and is attached; " in body.get_content()


async def test_a_service_that_fails_is_told_in_its_words_without_the_token() -> None:
    token, anothers = "Ab1Cd2Ef3Gh4Ij5", "sk-proj-0123456789abcdef"
    words = f"no room for {token} or {anothers}".encode()
    async with HttpPeer(said(answer(500, body=words))) as peer, tools_with() as tools:
        refused = await _refused(to(f"gotify://127.0.0.1:{peer.port}/{token}"), tools)

    assert "error=500" in str(refused)
    assert "no room for [secret] or [secret]" in str(refused)
    assert not refused.permanent
    assert peer.connections == 1


async def test_a_token_that_is_cut_in_the_words_about_one_of_several_is_not_told_either() -> None:
    words = f"{'x' * 272} Ab1Cd2Ef3Gh4Ij5 and more".encode()
    async with HttpPeer(said(answer(500, body=words))) as peer, tools_with() as tools:
        url = f"ntfy://promptd:Ab1Cd2Ef3Gh4Ij5@127.0.0.1:{peer.port}/one/two"
        refused = await _refused(to(url), tools)

    assert "xx [secret]; Failed" in str(refused)


async def test_a_redirect_is_not_followed_by_apprise_either() -> None:
    async with HttpPeer(said(answer(200))) as other, tools_with() as tools:
        moved = answer(307, f"location: {other.url('/')}")
        async with HttpPeer(said(moved)) as peer:
            await _refused(to(f"json://127.0.0.1:{peer.port}/Ab1Cd2Ef3Gh4Ij5?retry=5&optional=yes"), tools)

        assert (peer.connections, other.connections) == (1, 0)


@pytest.mark.parametrize(("host", "permanent"), [("000", False), ("0.0.0.0", True)])
async def test_what_webhooks_never_ask_apprise_does_not_ask_either(host: str, permanent: bool) -> None:
    """Both lead to ourselves, so the server of this test would hear it; the first is known as it is asked."""
    async with HttpPeer(said(answer(200))) as peer, tools_with() as tools:
        refused = await _refused(to(f"json://{host}:{peer.port}/"), tools)

    assert "not asked" in str(refused)
    assert (refused.permanent, peer.connections) == (permanent, 0)


@pytest.mark.parametrize(
    "url",
    ["nonesuch://Ab1Cd2Ef3", "config:///etc/hostname", "file:///etc/hostname", "slack://Ab1Cd2Ef3", "x"],
)
def test_an_address_that_apprise_does_not_know_has_no_service(url: str) -> None:
    assert service_of(url) is None


async def test_an_address_that_apprise_does_not_know_is_refused_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies in the directory in which promptd was started."""
    for name in ("json.py", "apprise.py", "jobs.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from here')")
    monkeypatch.chdir(tmp_path)
    async with tools_with() as tools:
        refused = await _refused(to("slack://Ab1Cd2Ef3"), tools)

    assert refused.permanent
    assert str(refused).startswith("Apprise: ")
    assert "Ab1Cd2Ef3" not in str(refused)


def _order(body: str) -> dict[str, Any]:
    given = {"subject": "Well", "whole_text": "promptd run output 7", "seconds": 30}
    return {**given, "body": body, "characters": len(body)}


def test_a_text_that_fits_goes_as_it_is() -> None:
    assert fitted(service_of(TELEGRAM), _order("<b>short</b>")) == ("<b>short</b>", None)


def test_a_text_that_is_too_long_is_cut_to_what_arrives_in_the_form_of_the_service() -> None:
    """Gotify takes no attachments; what Telegram shows as HTML takes more room than what it says."""
    body, attachment = fitted(service_of("gotify://127.0.0.1/Ab1Cd2Ef3Gh4Ij5"), _order("<" * 100_000))
    assert attachment is None
    assert 32_000 < len(body) <= 32_768
    assert body.endswith("characters; `promptd run output 7` prints it]\n")

    body, attachment = fitted(service_of(TELEGRAM + "?format=html"), _order("<" * 100_000))
    assert attachment is not None
    assert 500 < len(body.replace("<", "&lt;")) <= 4_096


def test_a_long_text_goes_in_ten_pieces_at_most_where_the_address_asks_for_pieces() -> None:
    body, attachment = fitted(
        service_of("gotify://127.0.0.1/Ab1Cd2Ef3Gh4?overflow=split"), _order("a " * 200_000)
    )

    assert attachment is None
    assert 320_000 < len(body) <= 327_680


def test_the_child_knows_of_our_environment_only_what_the_way_out_needs() -> None:
    ours = {
        "PATH": "/bin",
        "HOME": "/root",
        "OPS_URL": "x",
        "HTTPS_PROXY": "http://proxy:3128",
        "NETRC": "/n",
    }

    assert environment(ours) == {"PATH": "/bin", "HTTPS_PROXY": "http://proxy:3128", "HOME": "/nonexistent"}
