"""Heartbeats: a dead-man's switch elsewhere is told that a job's run begins, and how it ends.

In the manner of Healthchecks (https://healthchecks.io/docs/http_api/): the URL itself says success, `/start`
and `/fail` behind it the rest; `rid`, a UUID of the client's choice, joins the pings of one run; a POST may
carry a text. A run that is missed, or that somebody cancels, pings nothing: the switch notices by itself.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, UUID, uuid5

from jobs.credential import SecretReference
from jobs.delivery.outgoing import Outgoing
from jobs.errors import SecretUnreadable, Undeliverable
from jobs.events import Event, RunFinished, RunRecovered, RunStarted
from jobs.providers.secrets import SecretReader
from jobs.run import ClaimedRun, Outcome, Reason, RunState, Trigger
from jobs.secret import Secret

MOST_WAITING = 4
"""How many pings of one job wait at most: the beginnings and ends of its last two runs."""

MOST_AT_ONCE = 8
"""How many requests one host gets at a time: a host that hangs holds up no other."""

TIMEOUT = timedelta(seconds=10)
PAUSES = (timedelta(0), timedelta(seconds=1), timedelta(seconds=5))  # before each try
_UNHEARD = (Trigger.DRILL, Trigger.ASK)
_WORTH_ANOTHER_TRY = (408, 425, 429)
_NAMESPACE = uuid5(NAMESPACE_URL, "urn:promptd:run")
_WORDS = {"content-type": "text/plain; charset=utf-8"}
logger = logging.getLogger(__name__)


class Signal(StrEnum):
    """What a ping says: the value goes behind the URL's path."""

    START = "/start"
    SUCCESS = ""
    FAIL = "/fail"


@dataclass(frozen=True, slots=True)
class Ping:
    """One ping of one run; `words` goes along for people, and holds nothing that a prompt or a model said.

    `url` is the heartbeat of the job as it was when the try began; None where it had none, or nobody knows.
    """

    job: str
    signal: Signal
    rid: UUID
    words: str
    url: SecretReference | None = None


def ping_of(event: Event) -> Ping | None:
    """Return the ping that an event means, if it means one."""
    match event:
        case RunStarted(run=run, heartbeat=url) if run.tries <= 1 and run.trigger not in _UNHEARD:
            return Ping(run.job, Signal.START, run_uuid(run), f"{_named(run)} has begun", url)
        case RunFinished(run=run, outcome=outcome) | RunRecovered(run=run, outcome=outcome):
            signal = _signal_of(outcome)
            if signal is not None and run.trigger not in _UNHEARD:
                url = event.heartbeat if isinstance(event, RunFinished) else None
                return Ping(run.job, signal, run_uuid(run), f"{_named(run)}: {_ended(run, outcome)}", url)
    return None


def _signal_of(outcome: Outcome) -> Signal | None:
    """Return what an end says. A job whose condition says no is alive; one that may ask no more is not."""
    match outcome.state:
        case RunState.SUCCEEDED:
            return Signal.SUCCESS
        case RunState.FAILED | RunState.TIMED_OUT | RunState.ABANDONED:
            return Signal.FAIL
        case RunState.SKIPPED if outcome.reason == Reason.CONDITION:
            return Signal.SUCCESS
        case RunState.SKIPPED | RunState.CANCELLED | RunState.MISSED | RunState.QUEUED | RunState.RUNNING:
            return None


def run_uuid(run: ClaimedRun) -> UUID:
    """Return a run's `rid`: the same in every process, at every try; hardly that of another database."""
    return uuid5(_NAMESPACE, f"{run.job} {run.scheduled_for.isoformat()} {run.id}")


def _named(run: ClaimedRun) -> str:
    return f"{run.job}, run {run.id} of {run.scheduled_for:%Y-%m-%d %H:%M:%S} UTC"


def _ended(run: ClaimedRun, outcome: Outcome) -> str:
    if outcome.state is RunState.SUCCEEDED:
        return "succeeded"
    why = f" ({outcome.reason})" if outcome.reason else ""
    return f"{outcome.state.value}{why}; see `promptd run show {run.id}`"


def address(url: Secret, signal: Signal) -> Secret:
    """Return where a signal goes: what the URL asks for (`?create=1`) stays. Raises ValueError for no URL."""
    parts = urlsplit(url.reveal())
    path = parts.path.rstrip("/") + signal if signal else parts.path
    return Secret(parts._replace(path=path).geturl())


def _host(url: Secret) -> str:
    return urlsplit(url.reveal()).netloc


class Heartbeats:
    """Pings the URLs of jobs. `hear` is a listener of events, called in the loop; it makes its own tasks.

    A run pings where its job did when it began, whatever a reload has made of that since; `urls`, those of
    the configured jobs by name, are for the ends of runs whose process is gone. The pings of one job go in
    their order, one at a time, each tried after each of `pauses` until it is taken; so many of one job wait
    at most, whatever others do, and its newest end is always among them. What fails harms nothing, and is
    logged once for a job until its URL answers again.
    """

    def __init__(
        self,
        urls: Mapping[str, SecretReference],
        *,
        secrets: SecretReader,
        outgoing: Outgoing,
        timeout: timedelta = TIMEOUT,
        pauses: Sequence[timedelta] = PAUSES,
    ) -> None:
        self._outgoing = outgoing
        self._timeout, self._pauses = timeout, pauses
        self._waiting: dict[str, deque[Ping]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sending: set[str] = set()
        self._failing: set[str] = set()
        self._dropped: Counter[str] = Counter()
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.take(urls, secrets=secrets)

    def take(self, urls: Mapping[str, SecretReference], *, secrets: SecretReader) -> None:
        """Ping for runs that begin with this configuration; those at work go on with what they have."""
        self._urls, self._secrets = urls, secrets
        self._hosts: dict[str, asyncio.Semaphore] = {}
        self._failing &= urls.keys()

    def hear(self, event: Event) -> None:
        """Queue the ping that an event means, if it means one."""
        ping = ping_of(event)
        if ping is not None and isinstance(event, RunRecovered):
            ping = replace(ping, url=self._urls.get(ping.job))
        if ping is None or ping.url is None or self._closed:
            return
        waiting = self._waiting.setdefault(ping.job, deque())
        waiting.append(ping)
        if len(waiting) > MOST_WAITING:
            self._drop_one(ping.job, waiting)
        if ping.job not in self._tasks:
            self._begin(ping.job)

    async def stop(self, seconds: float) -> None:
        """Let what waits be sent for so long, then give it up and say how much that was."""
        self._closed = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            left = sum(map(len, self._waiting.values())) + len(self._sending)
            logger.warning("%d heartbeat pings were not sent before the end", left)
        self._waiting.clear()
        for task in tuple(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _drop_one(self, job: str, waiting: deque[Ping]) -> None:
        """Drop what is worth least: a beginning that something has come after, else the oldest end."""
        begun = (place for place, ping in enumerate(waiting) if ping.signal is Signal.START)
        place = next(begun, 0)
        del waiting[place if place < len(waiting) - 1 else 0]
        if not self._dropped[job]:
            logger.warning("heartbeats of %s come faster than they are taken: older ones are dropped", job)
        self._dropped[job] += 1

    def _begin(self, job: str) -> None:
        """Send what waits of a job, in a context of its own: this may be that of another job's run."""
        task = asyncio.create_task(self._send_all(job), name=f"heartbeat of {job}", context=Context())
        self._tasks[job] = task
        task.add_done_callback(partial(self._ended, job), context=Context())
        self._idle.clear()

    def _ended(self, job: str, task: "asyncio.Task[None]") -> None:
        del self._tasks[job]
        self._sending.discard(job)
        if not task.cancelled() and (bug := task.exception()) is not None:
            logger.error("a heartbeat of %s could not be sent: %s", job, type(bug).__name__)
        if self._waiting.get(job):
            self._begin(job)
            return
        self._waiting.pop(job, None)
        if dropped := self._dropped.pop(job, 0):
            logger.warning("%d heartbeat pings of %s were dropped", dropped, job)
        if not self._tasks:
            self._idle.set()

    async def _send_all(self, job: str) -> None:
        """Send what waits of a job, and what comes meanwhile."""
        while waiting := self._waiting.get(job):
            self._sending.add(job)
            await self._send(waiting.popleft())
            self._sending.discard(job)

    async def _send(self, ping: Ping) -> None:
        why = await self._tried(ping)
        if why is None:
            self._heard(ping.job)
        else:
            self._unheard(ping.job, why)

    async def _tried(self, ping: Ping) -> str | None:
        """Send a ping until it is taken, as often as there are pauses; return why nobody took it."""
        why = None
        for pause in self._pauses:
            await asyncio.sleep(pause.total_seconds())
            try:
                await self._ask(ping)
            except Undeliverable as exc:
                why = str(exc)
                if exc.permanent:
                    break
            else:
                return None
        return why

    async def _ask(self, ping: Ping) -> None:
        """Send a ping once; raises Undeliverable where it is not taken."""
        assert ping.url is not None
        try:
            url = address(await asyncio.to_thread(self._secrets.unlearned, ping.url), ping.signal)
        except SecretUnreadable as exc:
            raise Undeliverable(f"its URL cannot be read: {exc}", permanent=True) from exc
        except ValueError as exc:
            raise Undeliverable("its heartbeat is no URL", permanent=True) from exc
        async with self._hosts.setdefault(_host(url), asyncio.Semaphore(MOST_AT_ONCE)):
            reply = await self._outgoing.ask(
                "POST",
                url,
                timeout=self._timeout,
                headers=_WORDS,
                content=ping.words.encode(),
                query={"rid": str(ping.rid)},
            )
        if not 200 <= reply.status < 300:
            again = reply.status >= 500 or reply.status in _WORTH_ANOTHER_TRY
            raise Undeliverable(f"it answers {reply.status}", permanent=not again)

    def _unheard(self, job: str, why: str) -> None:
        if job not in self._failing:
            logger.warning("heartbeats of %s are not heard: %s", job, why)
        self._failing.add(job)

    def _heard(self, job: str) -> None:
        if job in self._failing:
            logger.info("heartbeats of %s are heard again", job)
        self._failing.discard(job)
