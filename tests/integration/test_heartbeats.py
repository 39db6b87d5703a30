"""Heartbeats over real HTTP: in order, bounded, and harmless whatever the other side does."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from support.delivering import literal, tools_with
from support.hang_guard import LONGEST, wait_ends
from support.hostile import held, said, stalled
from support.http_peer import HttpPeer, answer
from support.wire import nobodys_port

from jobs.credential import SecretReference
from jobs.delivery.heartbeat import MOST_AT_ONCE, MOST_WAITING, Heartbeats, run_uuid
from jobs.delivery.outgoing import LookUp
from jobs.errors import ErrorClass
from jobs.events import RunFinished, RunRecovered, RunStarted
from jobs.run import ClaimedRun, Outcome, Served, Trigger
from jobs.secret import Redactor

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
FINE = said(answer(200, body=b"OK"))
GOOD = Outcome.succeeded("fine", served=Served("zai", "glm-5", "main"))
BAD = Outcome.failed(ErrorClass.AUTH, "refused")
AT_ONCE = (timedelta(0),) * 3
PING = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
OF_RUN: ContextVar[str] = ContextVar("OF_RUN", default="nobody")


def run(number: int = 1, job: str = "digest") -> ClaimedRun:
    """Return a run at its first try."""
    return ClaimedRun(number, job, NOW, Trigger.SCHEDULE, tries=1)


def begun(number: int = 1, job: str = "digest") -> RunStarted:
    """Return its beginning."""
    return RunStarted(run(number, job), 0.0)


def over(number: int = 1, outcome: Outcome = GOOD, job: str = "digest") -> RunFinished:
    """Return its end."""
    return RunFinished(run(number, job), outcome, 1.0)


@dataclass(frozen=True)
class Beating:
    """Heartbeats that hear of runs which began when their jobs had these."""

    heartbeats: Heartbeats
    references: dict[str, SecretReference]

    def hear(self, event: RunStarted | RunFinished) -> None:
        self.heartbeats.hear(replace(event, heartbeat=self.references.get(event.run.job)))

    async def stop(self, seconds: float) -> None:
        await self.heartbeats.stop(seconds)


@asynccontextmanager
async def beating(
    urls: dict[str, str | SecretReference],
    *,
    timeout: float = LONGEST,
    look_up: LookUp | None = None,
    **environ: str,
) -> AsyncIterator[tuple[Beating, Redactor]]:
    """Yield heartbeats for these jobs, with no pause between tries; they are stopped at once."""
    references = {job: literal(url) if isinstance(url, str) else url for job, url in urls.items()}
    async with tools_with(look_up, **environ) as tools:
        heartbeats = Heartbeats(
            {},
            secrets=tools.secrets,
            outgoing=tools.outgoing,
            timeout=timedelta(seconds=timeout),
            pauses=AT_ONCE,
        )
        yield Beating(heartbeats, references), tools.redactor
        await heartbeats.stop(0)


def paths(peer: HttpPeer) -> list[str]:
    """Return the paths that were asked for, in order."""
    return [urlsplit(each.path).path for each in peer.taken]


def rids(peer: HttpPeer) -> list[str]:
    """Return the run of each request."""
    return [parse_qs(urlsplit(each.path).query)["rid"][0] for each in peer.taken]


async def test_a_run_pings_its_start_and_its_end_with_one_rid() -> None:
    async with HttpPeer(FINE) as peer, beating({"digest": peer.url("/uuid")}) as (heartbeats, _):
        for event in (begun(), over(), begun(2), over(2, BAD)):
            heartbeats.hear(event)
        await heartbeats.stop(LONGEST)

        assert paths(peer) == ["/uuid/start", "/uuid", "/uuid/start", "/uuid/fail"]
        assert rids(peer) == [str(run_uuid(run(number))) for number in (1, 1, 2, 2)]
        assert {each.method for each in peer.taken} == {"POST"}
        assert b"`promptd run show 2`" in peer.taken[-1].body


async def test_what_a_url_asks_for_already_stays() -> None:
    """A check may be made by its first ping."""
    async with HttpPeer(FINE) as peer, beating({"digest": peer.url("/key/slug?create=1")}) as (heartbeats, _):
        heartbeats.hear(begun())
        await heartbeats.stop(LONGEST)

        assert peer.taken[0].path == f"/key/slug/start?create=1&rid={run_uuid(run())}"


async def test_a_job_without_a_heartbeat_pings_nothing() -> None:
    async with HttpPeer(FINE) as peer, beating({"digest": peer.url()}) as (heartbeats, _):
        heartbeats.hear(begun(job="report"))
        await heartbeats.stop(LONGEST)

        assert peer.connections == 0


async def test_a_server_in_trouble_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """The same ping, so that the pings of one job keep their order; and nothing is to be told of it."""
    busy = said(answer(503))
    async with HttpPeer(busy, busy, FINE) as peer, beating({"digest": peer.url("/u")}) as (heartbeats, _):
        heartbeats.hear(begun())
        heartbeats.hear(over())
        await heartbeats.stop(LONGEST)

        assert paths(peer) == ["/u/start", "/u/start", "/u/start", "/u"]
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (301, 1), (400, 1), (503, 3), (429, 3), (408, 3)])
async def test_a_refusal_that_no_repetition_mends_is_not_repeated(status: int, asked: int) -> None:
    """A redirect is one: it is not followed."""
    async with HttpPeer(said(answer(status))) as peer, beating({"digest": peer.url()}) as (heartbeats, _):
        heartbeats.hear(begun())
        await heartbeats.stop(LONGEST)

        assert peer.connections == asked


async def test_what_is_not_heard_is_logged_once_until_it_is_heard_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The URL is a secret: it does not stand there. (What httpx2 itself would say is quiet: see `logs`.)"""
    caplog.set_level(logging.INFO, "jobs.delivery.heartbeat")
    ways = [said(answer(404))] * 3 + [FINE, FINE, said(answer(404))]
    async with (
        HttpPeer(*ways) as peer,
        beating({"digest": peer.url("/uuid-of-it")}) as (heartbeats, _),
    ):
        for number in range(6):
            heartbeats.hear(over(number))
            await until(lambda so_far=number: len(peer.taken) > so_far)
        await heartbeats.stop(LONGEST)

    said_ = [each.getMessage() for each in caplog.records if each.name == "jobs.delivery.heartbeat"]
    refused = "heartbeats of digest are not heard: it answers 404"
    assert said_ == [refused, "heartbeats of digest are heard again", refused]


async def test_a_server_that_hangs_or_is_not_there_holds_up_no_other_job() -> None:
    async with HttpPeer(stalled()) as hangs, HttpPeer(FINE) as works:
        with nobodys_port() as port:
            urls = {"slow": hangs.url(), "absent": f"http://127.0.0.1:{port}/u", "digest": works.url("/u")}
            async with beating(urls, timeout=2 * LONGEST) as (heartbeats, _):
                for job in urls:
                    heartbeats.hear(begun(job=job))
                    heartbeats.hear(over(job=job))
                await until(lambda: len(works.taken) == 2)

        assert paths(works) == ["/u/start", "/u"]


async def test_a_server_that_hangs_is_given_up_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """At each of three tries."""
    tried: list[str] = []

    async def look_up(host: str, _port: int) -> Sequence[str]:
        tried.append(host)
        return [host]

    async with (
        HttpPeer(stalled()) as peer,
        beating({"digest": peer.url()}, timeout=0.05, look_up=look_up) as (heartbeats, _),
    ):
        heartbeats.hear(begun())
        await heartbeats.stop(LONGEST)

    assert len(tried) == 3
    assert "heartbeats of digest are not heard: 127.0.0.1 gave no answer within 0.05 s" in caplog.text


async def test_of_too_many_that_wait_a_job_loses_its_own_oldest_and_beginnings_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another job's are safe, and of the same job the newest end."""
    goes_on = asyncio.Event()
    busy = held(goes_on, said(answer(503)))
    async with HttpPeer(busy, FINE) as peer, HttpPeer(busy, FINE) as other:
        async with beating({"noisy": peer.url("/u"), "digest": other.url("/u")}) as (beats, _):
            for job, number in (("noisy", 0), ("digest", 0), ("digest", 1)):
                beats.hear(over(number, job=job))
            await until(lambda: len(peer.taken) == len(other.taken) == 1)
            for number in range(1, 100):
                beats.hear(begun(number, job="noisy"))
                beats.hear(over(number, job="noisy"))
            beats.hear(begun(100, job="noisy"))
            goes_on.set()
            await beats.stop(LONGEST)

        sent = list(zip(paths(peer), (int(each.body.split()[2]) for each in peer.taken), strict=True))
        assert sent == [("/u", 0), ("/u", 0), ("/u", 97), ("/u", 98), ("/u", 99), ("/u/start", 100)]
        assert rids(other)[-1] == str(run_uuid(run(1, "digest")))
    assert caplog.text.count("heartbeats of noisy come faster than they are taken") == 1
    assert f"{199 - MOST_WAITING} heartbeat pings of noisy were dropped" in caplog.text


async def test_every_job_of_a_crowd_that_ends_in_one_second_gets_its_pings() -> None:
    """Each pays for itself only, however many there are."""
    async with HttpPeer(FINE) as peer:
        urls: dict[str, str | SecretReference] = {f"job-{n}": peer.url(f"/{n}") for n in range(200)}
        async with beating(urls) as (heartbeats, _):
            for event in (begun, over):
                for job in urls:
                    heartbeats.hear(event(job=job))
            await heartbeats.stop(LONGEST)

        assert sorted(paths(peer)) == sorted(f"/{n}{end}" for n in range(200) for end in ("", "/start"))


async def test_a_host_that_hangs_holds_up_no_other_however_many_jobs_it_serves() -> None:
    async with HttpPeer(stalled()) as hangs, HttpPeer(FINE) as works:
        slow: dict[str, str | SecretReference] = {f"slow-{number}": hangs.url() for number in range(20)}
        async with beating({**slow, "digest": works.url("/u")}, timeout=2 * LONGEST) as (heartbeats, _):
            for job in (*slow, "digest"):
                heartbeats.hear(over(job=job))
            await until(lambda: len(works.taken) == 1)
            await until(lambda: hangs.connections == MOST_AT_ONCE)

        assert hangs.connections == MOST_AT_ONCE


async def test_pings_are_sent_in_no_run_s_context(caplog: pytest.LogCaptureFixture) -> None:
    """A line about one job's heartbeat does not name the run of another, whose end happened to be heard."""
    seen: dict[str, str] = {}
    caplog.handler.addFilter(lambda record: bool(seen.setdefault(record.getMessage(), OF_RUN.get())))

    async def ended(heartbeats: Beating, job: str) -> None:
        OF_RUN.set(job)
        heartbeats.hear(over(job=job))
        heartbeats.hear(over(2, job=job))

    async with (
        HttpPeer(said(answer(404))) as peer,
        beating({"digest": peer.url(), "report": peer.url()}) as (heartbeats, _),
    ):
        await asyncio.gather(*(ended(heartbeats, job) for job in ("digest", "report")))
        await heartbeats.stop(LONGEST)

    told = {words: where for words, where in seen.items() if "are not heard" in words}
    assert told == {
        f"heartbeats of {job} are not heard: it answers 404": "nobody" for job in ("digest", "report")
    }


async def until(holds: Callable[[], bool]) -> None:
    """Wait until that is so."""
    async with wait_ends():
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_url_that_cannot_be_read_is_told_by_its_place(caplog: pytest.LogCaptureFixture) -> None:
    async with beating({"digest": SecretReference("env", "PING_URL")}) as (heartbeats, _):
        heartbeats.hear(begun())
        await heartbeats.stop(LONGEST)
    assert "its URL cannot be read: the variable PING_URL is not set" in caplog.text


async def test_the_end_waits_for_what_is_sent_so_long_and_no_longer(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        HttpPeer(stalled()) as peer,
        beating({"digest": peer.url()}, timeout=2 * LONGEST) as (heartbeats, _),
    ):
        for event in (begun(), over()):
            heartbeats.hear(event)
        async with wait_ends():
            await heartbeats.stop(0.2)

    assert "2 heartbeat pings were not sent before the end" in caplog.text


async def test_after_its_end_nothing_is_sent() -> None:
    async with HttpPeer(FINE) as peer, beating({"digest": peer.url()}) as (heartbeats, _):
        await heartbeats.stop(LONGEST)
        heartbeats.hear(begun())
        await heartbeats.stop(LONGEST)

        assert peer.connections == 0


@pytest.mark.parametrize("kept", [True, False])
async def test_a_run_pings_where_its_job_did_when_it_began_whatever_is_reloaded_meanwhile(kept: bool) -> None:
    """Also what waits already; what a process that is gone has left is told to the job as it is now."""
    async with HttpPeer(FINE) as old, HttpPeer(FINE) as new, tools_with() as tools:
        before, now = literal(old.url("/old")), literal(new.url("/new"))
        heartbeats = Heartbeats(
            {"digest": before},
            secrets=tools.secrets,
            outgoing=tools.outgoing,
            timeout=timedelta(seconds=LONGEST),
        )
        heartbeats.hear(replace(begun(), heartbeat=before))
        heartbeats.take({"digest": now} if kept else {}, secrets=tools.secrets)
        heartbeats.hear(replace(over(), heartbeat=before))
        heartbeats.hear(over(2))
        heartbeats.hear(RunRecovered(run(3), BAD))
        await heartbeats.stop(LONGEST)

        assert paths(old) == ["/old/start", "/old"]
        assert paths(new) == (["/new/fail"] if kept else [])


async def test_the_ids_of_runs_are_no_secrets_so_that_the_list_of_those_does_not_grow() -> None:
    """The URL is one; every run has another id."""
    async with (
        HttpPeer(FINE) as peer,
        beating({"digest": peer.url(f"/{PING}")}) as (heartbeats, redactor),
    ):
        heartbeats.hear(begun())
        await heartbeats.stop(LONGEST)

        assert redactor.clean(f"rid={run_uuid(run())}") == f"rid={run_uuid(run())}"
        assert PING not in redactor.clean("asked " + peer.url(f"/{PING}"))
