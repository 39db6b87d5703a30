"""The guarded way out: whom it asks, how often it looks a name up, and what no server can make it do."""

import asyncio
import socket
import threading
import tracemalloc
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from support.delivering import certificate, tools_with
from support.hang_guard import LONGEST, wait_ends
from support.hostile import LIES, STALLS, HostileServer, redirect, said, stalled
from support.http_peer import HttpPeer, answer
from support.wire import nobodys_port

from jobs.delivery.aside import Aside
from jobs.delivery.outgoing import LARGEST_ANSWER, Outgoing
from jobs.errors import Undeliverable
from jobs.secret import Redactor, Secret

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)
LONG = timedelta(seconds=LONGEST)  # for who answers
FINE = said(answer(200, body=b"taken"))


BODIES = {"slow-body", "slow-events", "half-a-body"}


class Names:
    """Answers look-ups: the first of each name with its first addresses, and so on; the last ones stay."""

    def __init__(self, **names: Sequence[Sequence[str]]) -> None:
        self._names = {name.replace("_", "."): list(found) for name, found in names.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        found = self._names.get(host, [[host]])
        return found.pop(0) if len(found) > 1 else found[0]


@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "0xa9fea9fe", "2852039166", "0xa9.254.0xa9fe"),
        *("169.16689662", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[fe80::1]"),
        *("[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]"),
        *("100.100.100.200", "0", "0.0.0.0", "[::]", "224.0.0.1", "[ff02::1]"),
    ],
)  # fmt: skip
async def test_no_spelling_of_an_address_that_tells_a_machines_secrets_is_asked(host: str) -> None:
    """Where such a thing is asked nevertheless, the server of this test hears it: 0 leads to ourselves."""
    async with HttpPeer(FINE) as peer, tools_with() as tools:
        with pytest.raises(Undeliverable, match="is not asked; set `allow_link_local: true`"):
            await tools.outgoing.ask("GET", Secret(peer.url(host=host)), timeout=LONG)

        assert peer.connections == 0


@pytest.mark.parametrize("host", ["0251.0376.0251.0376", "0xa9fe_a9fe", "①⑥⑨.254.169.254", "a b", "a%2eb"])
async def test_what_is_no_name_of_a_host_is_asked_nowhere(host: str) -> None:
    async with tools_with() as tools:
        with pytest.raises(Undeliverable, match=r"cannot be looked up|cannot be read"):
            await tools.outgoing.ask("GET", Secret(f"http://{host}/"), timeout=LONG)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.org/", "file:///etc/passwd", "example.org", "http://", "http:///in", "http://a:99999/"),
        *("http://a:0/", "http://user:password@127.0.0.1/", "http://example.org\\@127.0.0.1/"),
        *("http://[::1/", ""),
    ],
)  # fmt: skip
async def test_a_url_that_leads_nowhere_is_refused_for_good(url: str) -> None:
    async with tools_with() as tools:
        with pytest.raises(Undeliverable) as refused:
            await tools.outgoing.ask("GET", Secret(url), timeout=LONG)

    assert refused.value.permanent
    assert "password" not in str(refused.value)


@pytest.mark.parametrize("other", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"])
async def test_a_name_with_one_bad_address_among_good_ones_is_not_asked(other: str) -> None:
    async with HttpPeer(FINE) as peer, tools_with(Names(hook_test=[["127.0.0.1", other]])) as tools:
        with pytest.raises(Undeliverable, match=r"hook\.test leads to .* which is link-local") as refused:
            await tools.outgoing.ask("GET", Secret(peer.url(host="hook.test")), timeout=LONG)

        assert peer.connections == 0
        assert not refused.value.permanent


async def test_the_address_that_was_judged_is_the_one_that_is_asked() -> None:
    """A name server that gives a good address to the judge, and a bad one afterwards, is asked only once."""
    names = Names(hook_test=[["127.0.0.1"], ["169.254.169.254"]])
    async with HttpPeer(FINE) as peer, tools_with(names) as tools:
        reply = await tools.outgoing.ask("POST", Secret(peer.url(host="hook.test")), timeout=LONG)

        assert (reply.status, reply.text, names.asked) == (200, "taken", ["hook.test"])
        assert peer.taken[0].headers["host"] == f"hook.test:{peer.port}"

        with pytest.raises(Undeliverable, match="link-local"):
            await tools.outgoing.ask("POST", Secret(peer.url(host="hook.test")), timeout=LONG)
        assert peer.connections == 1


async def test_who_means_it_may_ask_such_an_address() -> None:
    async with HttpPeer(FINE) as peer, tools_with() as tools:
        reply = await tools.outgoing.ask(
            "GET", Secret(peer.url(host="0.0.0.0")), timeout=LONG, allow_link_local=True
        )

    assert reply.status == 200


async def test_servers_of_this_machine_are_asked_by_name_also_where_only_one_address_listens() -> None:
    async with HttpPeer(FINE) as peer, tools_with() as tools:
        assert (await tools.outgoing.ask("GET", Secret(peer.url(host="localhost")), timeout=LONG)).text

    async with HttpPeer(FINE) as peer, tools_with(Names(two=[["127.0.0.9", "127.0.0.1"]])) as tools:
        assert (await tools.outgoing.ask("GET", Secret(peer.url(host="two")), timeout=LONG)).text


async def test_a_certificate_has_to_be_for_the_name_and_not_for_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted = certificate(tmp_path, "hook.test")
    seen: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: seen.append(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    names = Names(hook_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    async with HttpPeer(FINE, tls=context) as peer, tools_with(names) as tools:
        reply = await tools.outgoing.ask("POST", Secret(peer.url(host="hook.test")), timeout=LONG)
        with pytest.raises(
            Undeliverable, match=r"other\.test could not be asked: .*CERTIFICATE_VERIFY_FAILED"
        ):
            await tools.outgoing.ask("POST", Secret(peer.url(host="other.test")), timeout=LONG)
        with pytest.raises(Undeliverable, match="CERTIFICATE_VERIFY_FAILED"):
            await tools.outgoing.ask("POST", Secret(peer.url()), timeout=LONG)

    assert reply.status == 200
    assert seen[:2] == ["hook.test", "other.test"]


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpPeer(FINE) as proxy, HttpPeer(FINE) as peer, tools_with() as tools:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url("/"))
        await tools.outgoing.ask("GET", Secret(peer.url()), timeout=LONG)

        assert (proxy.connections, peer.connections) == (0, 1)


async def test_nothing_is_followed_kept_or_asked_twice() -> None:
    """Neither a redirect, nor a cookie, nor a connection."""
    moved = said(redirect(302, "http://127.0.0.1:9/").replace(b"\r\n\r\n", b"\r\nset-cookie: a=b\r\n\r\n"))
    async with HttpPeer(moved, FINE) as peer, tools_with() as tools:
        first = await tools.outgoing.ask("POST", Secret(peer.url()), timeout=LONG, content=b"x")
        await tools.outgoing.ask("POST", Secret(peer.url()), timeout=LONG, content=b"x")

    assert first.status == 302
    assert peer.connections == 2
    assert "cookie" not in peer.taken[1].headers
    assert peer.taken[0].headers["accept-encoding"] == "identity"


async def test_whatever_a_server_does_the_time_is_kept() -> None:
    """Those whose status is known are answers: their body is read for as long as there is time."""
    with HostileServer(STALLS) as server:
        async with tools_with() as tools, wait_ends():
            came = await asyncio.gather(
                *(
                    tools.outgoing.ask("POST", Secret(server.url(way)), timeout=SECOND, content=b"x")
                    for way in STALLS
                ),
                *(tools.outgoing.ask("POST", Secret(server.url(way)), timeout=LONG) for way in BODIES),
                return_exceptions=True,
            )

    in_a_second, with_time = came[: len(STALLS)], came[len(STALLS) :]
    unheard = [way for way, each in zip(STALLS, in_a_second, strict=True) if isinstance(each, BaseException)]
    assert set(unheard) >= STALLS.keys() - BODIES
    assert [each for each in with_time if isinstance(each, BaseException)] == []
    assert all(isinstance(each, Undeliverable) for each in in_a_second if isinstance(each, BaseException))


async def _outcome(outgoing: Outgoing, url: str) -> str:
    """Return what is kept of an answer, or what is said of there being none."""
    try:
        return (await outgoing.ask("POST", Secret(url), timeout=LONG)).text
    except Undeliverable as exc:
        return str(exc)


async def test_of_a_long_answer_no_more_is_fetched_than_is_kept() -> None:
    """It is hung up on: the server cannot get rid of the rest."""
    whole, gone = 64 * 1024 * 1024, 0

    async def talk(writer: asyncio.StreamWriter) -> None:
        nonlocal gone
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % whole)
        while gone < whole:
            writer.write(b"x" * LARGEST_ANSWER)
            await writer.drain()
            gone += LARGEST_ANSWER

    async with HttpPeer(talk) as peer, tools_with() as tools:
        reply = await tools.outgoing.ask("GET", Secret(peer.url()), timeout=LONG)

    assert len(reply.text) == LARGEST_ANSWER
    assert gone < whole / 2


async def test_whatever_a_server_says_little_of_it_is_kept() -> None:
    with HostileServer(LIES) as server:
        async with tools_with() as tools:
            tracemalloc.start()
            try:
                came = [await _outcome(tools.outgoing, server.url(way)) for way in LIES]
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()

    assert all(len(each) <= LARGEST_ANSWER for each in came)
    # The server of this test lives in this process and joins what it floods: most of the peak is its own.
    assert peak < 64 * 1024 * 1024


async def test_an_error_tells_no_part_of_the_url_that_admits() -> None:
    with nobodys_port() as port:
        async with tools_with() as tools:
            url = Secret(f"http://127.0.0.1:{port}/in/Ab1Cd2Ef3Gh4?token=a-lower-one")
            with pytest.raises(Undeliverable) as refused:
                await tools.outgoing.ask("POST", url, timeout=LONG)

            shown = tools.outgoing.told("you asked for\n/in/Ab1Cd2Ef3Gh4 by\x1b a-lower-one")

    assert "127.0.0.1 could not be asked" in str(refused.value)
    assert "Ab1Cd2Ef3Gh4" not in f"{refused.value!r}"
    assert shown == "you asked for /in/[secret] by [secret]"


@pytest.mark.parametrize("hostile", ["a\r\nX-More: b", "a\0", "ü", "\x7f"])
async def test_a_header_that_cannot_be_sent_is_named_and_its_value_is_not(hostile: str) -> None:
    async with HttpPeer(FINE) as peer, tools_with() as tools:
        with pytest.raises(Undeliverable, match="the header X-One holds characters") as refused:
            await tools.outgoing.ask("POST", Secret(peer.url()), timeout=LONG, headers={"X-One": hostile})

        assert peer.connections == 0
        assert refused.value.permanent


async def test_a_name_server_that_does_not_answer_costs_only_the_time() -> None:
    async def never(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    outgoing = Outgoing(Redactor(), look_up=never)
    with pytest.raises(Undeliverable, match=r"example\.org gave no answer within 0\.1 s"):
        await outgoing.ask("GET", Secret("http://example.org/"), timeout=SECOND / 10)


async def test_a_name_that_nobody_has_is_said_to_be_unknown() -> None:
    async def unknown(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    outgoing = Outgoing(Redactor(), look_up=unknown)
    with pytest.raises(Undeliverable, match="cannot be looked up: Name or service not known") as refused:
        await outgoing.ask("GET", Secret("http://example.invalid/"), timeout=SECOND)
    assert not refused.value.permanent


async def test_a_call_that_hangs_costs_one_thread_and_holds_up_neither_the_loop_nor_others() -> None:
    aside, gate = Aside(), threading.Event()
    for _ in range(3):
        with pytest.raises((TimeoutError, BlockingIOError)):
            async with asyncio.timeout(0.05):
                await aside.call("hangs", gate.wait)
    hanging = [each for each in threading.enumerate() if each.name == "aside"]

    other = await aside.call("works", len, "four")
    with pytest.raises(BlockingIOError, match="an earlier try still hangs"):
        async with wait_ends():
            await aside.call("hangs", len, "four")
    gate.set()
    async with wait_ends():
        joined = await aside.share("hangs", len, "four")

    assert ([each.daemon for each in hanging], other, joined) == ([True], 4, True)
    assert await aside.call("hangs", len, "four") == 4


async def test_no_more_calls_hang_than_are_allowed() -> None:
    aside, gate = Aside(2), threading.Event()
    hanging = [asyncio.create_task(aside.call(key, gate.wait)) for key in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(BlockingIOError, match="2 others hang"):
        await aside.call("another", len, "four")

    gate.set()
    await asyncio.gather(*hanging)
    assert await aside.call("another", len, "four") == 4


async def test_what_goes_wrong_beside_the_loop_is_raised_where_it_was_asked_for() -> None:
    with pytest.raises(ZeroDivisionError):
        await Aside(1).call("sum", divmod, 1, 0)


async def test_a_server_that_hangs_up_or_never_speaks_is_told_apart() -> None:
    async with HttpPeer(said(b""), stalled()) as peer, tools_with() as tools:
        with pytest.raises(Undeliverable, match="could not be asked"):
            await tools.outgoing.ask("POST", Secret(peer.url()), timeout=LONG)
        with pytest.raises(Undeliverable, match=r"gave no answer within 0\.2 s|did not answer in time"):
            await tools.outgoing.ask("POST", Secret(peer.url()), timeout=SECOND / 5)
