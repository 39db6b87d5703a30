"""The one place that knows how the product is called from inside: a seam that moves is followed here.

What is measured is made by the product's own composition root, on a SQLite file as the daemon opens it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert

from jobs import clock
from jobs.attempt import Attempt, Purpose
from jobs.events import Event, Events
from jobs.providers.call import Answered, Call
from jobs.request import Completion, Request, Usage
from jobs.run import ClaimedRun, RunState, Trigger
from jobs.runner import run_job
from jobs.secret import Redactor
from jobs.store import claims
from jobs.store import jobs as job_verbs
from jobs.store.claims import JobClaim, NewRun
from jobs.store.engine import open_engine
from jobs.store.jobs import JobState
from jobs.store.tables import marks
from jobs.store.tables import runs as run_table
from scheduler import __version__, logs
from scheduler.app import App, ensure_database, open_app
from scheduler.config import loader
from scheduler.config.settings import Settings
from scheduler.daemon import Daemon
from scheduler.metrics import Known, Metrics
from scheduler.planning import key_of
from scheduler.sd_notify import Notifier
from scheduler.state import known_of
from scheduler.worker_pool import WorkerPool

KEY = {"BENCH_KEY": "sk-bench-0123456789"}
HEAD = 'state_dir: state\nserver: {listen: "off"}\n'


def settings_in(directory: Path, text: str) -> Settings:
    """Write a configuration, make its database, and return what was read."""
    path = directory / "promptd.yaml"
    path.write_text(HEAD + text)
    settings = loader.load(path, environ={**os.environ, **KEY}, now=clock.utcnow())
    ensure_database(settings)
    return settings


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator["Product"]:
    """Open the parts as the daemon does, with its listeners: events are logged and counted."""
    redactor, events = Redactor(), Events(logs.hear)
    metrics = Metrics(version=__version__, known=known_of(settings))
    events.listen(metrics.hear)
    with _logging(settings, redactor):
        async with open_app(settings, environ=KEY, kind="daemon", events=events, redactor=redactor) as app:
            keys = {name: key_of(job) for name, job in settings.jobs.items()}
            states = await app.store.write(job_verbs.see, keys, now=clock.utcnow())
            yield Product(app, dict(states))


@contextmanager
def _logging(settings: Settings, redactor: Redactor) -> Iterator[None]:
    """Write log lines as the daemon does, to where nobody reads them."""
    with Path(os.devnull).open("w") as nowhere:
        logs.configure(settings.log_level, settings.log_format, redactor, stream=nowhere)
        yield


@dataclass(frozen=True, slots=True)
class Product:
    """The opened parts, and the verbs that are measured."""

    app: App
    states: dict[str, JobState]

    async def claim(self, names: Sequence[str], instant: datetime) -> Sequence[ClaimedRun]:
        """Claim one instant of each job in one transaction, cursors moved, as the daemon does.

        What another process has claimed is nobody's here; the next instant is planned from this one.
        """
        claimed = await self.app.store.insist(
            claims.claim,
            [self._claim_of(name, instant) for name in names],
            instance_id=self.app.workshop.instance_id,
            now=clock.utcnow(),
        )
        self.states.update({name: replace(self.states[name], cursor=instant) for name in names})
        return claimed.ours

    def _claim_of(self, name: str, instant: datetime) -> JobClaim:
        state = self.states[name]
        run = NewRun(name, instant, Trigger.SCHEDULE)
        return JobClaim(name, state.decided_until, state.period_id, instant, (run,))

    async def finish(self, claimed: Sequence[Sequence[ClaimedRun]]) -> None:
        """Let the workers bring every claimed run to its end."""
        left = sum(map(len, claimed))
        done = asyncio.Event()

        async def work(run: ClaimedRun) -> None:
            nonlocal left
            job = self.app.settings.jobs[run.job]
            done_with = await run_job(run, job.job, self.app.workshop, zone=job.timezone)
            assert done_with.outcome.served is not None, done_with
            left -= 1
            if not left:
                done.set()

        workers = WorkerPool(work, limit=self.app.settings.limits.max_concurrent_runs)
        for each in claimed:
            workers.submit(each)
        await done.wait()

    async def forget_marks(self) -> None:
        """Open every credential again."""
        await self.app.store.write(lambda connection: connection.execute(delete(marks)))


def fill_ledger(config: Path, *, runs_each: int, environ: Mapping[str, str]) -> None:
    """Write so many runs of each job that have succeeded, an hour apart, the newest an hour ago."""
    now = clock.utcnow()
    settings = loader.load(config, environ=environ, now=now)
    ensure_database(settings)
    engine = open_engine(settings.database, writes=True)
    with engine.begin() as connection:
        for back in range(1, runs_each + 1):
            at = now - timedelta(hours=back)
            connection.execute(insert(run_table), [_ended(name, at) for name in settings.jobs])
    engine.dispose()


def _ended(name: str, at: datetime) -> dict[str, Any]:
    served = {"served_provider": "custom:nobody", "served_model": "small", "output": "All quiet."}
    times = dict.fromkeys(("scheduled_for", "created_at", "started_at", "finished_at"), at)
    state = {"trigger": Trigger.SCHEDULE, "state": RunState.SUCCEEDED, "tries": 1}
    return {"job": name, **state, **times, **served}


class StubChain:
    """Answers at once, in place of a model: everything but the call is measured."""

    def __init__(self, settings: Settings) -> None:
        (self._target,) = set(settings.targets())
        (self._credential,) = settings.registry.provider(self._target.provider).credentials

    async def complete(self, request: Request, call: Call) -> Answered:
        """Answer."""
        target = self._target
        attempt = Attempt(
            id=0,
            target=target,
            target_index=0,
            credential=self._credential,
            purpose=Purpose.MAIN,
            base_url=target.base_url,
            api_mode=target.api_mode,
            started_at=clock.utcnow(),
            secret=None,
            fingerprint=None,
        )
        return Answered(Completion("All quiet.", truncated=False, usage=Usage()), attempt, request)


class _Herald(Notifier):
    """Says when the daemon is ready, as systemd would be told."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__({})
        self._tell = tell

    def ready(self, status: str) -> None:
        """Pass it on."""
        self._tell()


async def run_stubbed_daemon(
    settings: Settings, *, seconds: float, hear: Callable[[Event], None], ready: Callable[[], None]
) -> None:
    """Run the daemon for so long, with nobody to ask; `hear` is told its events as they come."""
    events, redactor = Events(logs.hear), Redactor()
    metrics = Metrics(version=__version__, known=Known(jobs=settings.jobs))
    events.listen(metrics.hear)
    events.listen(hear)
    with _logging(settings, redactor):
        async with open_app(settings, environ=KEY, kind="daemon", events=events, redactor=redactor) as app:
            stub: Any = StubChain(settings)
            stubbed = replace(app, workshop=replace(app.workshop, chain=stub))
            daemon = Daemon(stubbed, _Herald(ready), metrics, environ=KEY)
            asyncio.get_running_loop().call_later(seconds, daemon.stop)
            await daemon.run()
