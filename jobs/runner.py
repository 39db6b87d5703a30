"""`run_job`: the one way a prompt meets a model. Begin a try, do it, settle, write and tell it: one line."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from jobs import clock, tries
from jobs.attempt import Purpose
from jobs.definition import Job
from jobs.errors import FenceLost, NotYet, Unavailable
from jobs.events import JobHeld, JobPaused, RunFinished, RunRetries, RunStarted
from jobs.one_try import outcome_of
from jobs.providers.call import Drill, Rest
from jobs.run import ClaimedRun, Consequences, Outcome, Reason, RunState
from jobs.silence import is_silent
from jobs.store import ledger, runs
from jobs.store.runs import Ended
from jobs.target import Target
from jobs.workshop import Work, Workshop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """How a try ended, and what that brought about: the run as it waits for `again`, runs of other jobs."""

    outcome: Outcome
    ended: Ended = field(default_factory=Ended)
    again: ClaimedRun | None = None


@dataclass(frozen=True, slots=True)
class _Begun:
    """A run with its try's number, and when it began: by the calendar, and by `clock.monotonic`."""

    run: ClaimedRun
    at: datetime
    monotonic: float


def _begin(connection: Connection, run: ClaimedRun, *, primary: Target, instance_id: int) -> _Begun:
    """Begin a try when the writer comes to it: a run that waits for the writer is still queued."""
    at, monotonic = clock.utcnow(), clock.monotonic()
    return _Begun(
        runs.start(connection, run, primary=primary, instance_id=instance_id, now=at), at, monotonic
    )


async def run_job(
    run: ClaimedRun,
    job: Job,
    workshop: Workshop,
    *,
    zone: ZoneInfo,
    drill: Drill | None = None,
    rest: Rest = nullcontext,
    consequences: Callable[[], Consequences] = Consequences,
) -> Done:
    """Do one try of a claimed run and write its end, with its consequences; return how it ended.

    Where another try follows, the run is queued again and comes back as `again`. Raises NotYet while the run
    waits for an earlier one of its job, FenceLost when somebody else has taken it over, and lets a
    cancellation through after it is written down. A cancellation with a `Reason` as its message ends the run
    with that reason; one that comes when the answer is there already ends only the search for a title: the
    success is written before that begins. What an end brings about is asked when it comes. `rest` is entered
    while the run waits for a closed chain to open.
    """
    begun, cancelled = await _started(run, job, workshop)
    waited = begun.at - max(run.scheduled_for, run.not_before or run.scheduled_for)
    workshop.events.emit(RunStarted(begun.run, max(0.0, waited.total_seconds()), job.heartbeat))
    deadline = begun.monotonic + tries.time_left(begun.run, job, now=begun.at).total_seconds()
    work = Work(begun.run, job, workshop, zone, deadline, drill, rest)
    outcome, cancelled = await _worked(work, cancelled)
    outcome = tries.settled(work.run, job, outcome, now=clock.utcnow())
    if outcome.state is RunState.QUEUED:
        return await _waiting(work, outcome)
    outcome, ended = await _ended(work, outcome, consequences())
    _tell(work, outcome, ended, seconds=clock.monotonic() - begun.monotonic)
    if cancelled is not None:
        raise cancelled
    return Done(replace(outcome, title=await _title(work, outcome)), ended)


async def _worked(
    work: Work, cancelled: asyncio.CancelledError | None
) -> tuple[Outcome, asyncio.CancelledError | None]:
    """Do a try's work, unless it is cancelled already; hand a cancellation back with what it leaves.

    One that comes while a good answer is judged takes nothing from it.
    """
    if cancelled is not None:
        return Outcome.cancelled(reason_of(cancelled)), cancelled
    try:
        outcome = await outcome_of(work)
    except asyncio.CancelledError as exc:
        return Outcome.cancelled(reason_of(exc)), exc
    try:
        silent = await is_silent(work, outcome)
    except asyncio.CancelledError as exc:
        return outcome, exc
    return replace(outcome, silent=True) if silent else outcome, None


async def _waiting(work: Work, outcome: Outcome) -> Done:
    """Queue a run for its next try; return it as it waits, or its end where somebody has asked for that.

    Where this process stops, it waits on, for whoever takes it up.
    """
    run, store, not_before = work.run, work.workshop.store, outcome.not_before
    assert not_before is not None
    now = clock.utcnow()
    writing = asyncio.ensure_future(store.insist(runs.requeue, run, outcome, not_before=not_before, now=now))
    try:
        again = await asyncio.shield(writing)
    except asyncio.CancelledError as exc:
        if reason_of(exc) is not Reason.SHUTDOWN:
            await writing
            await store.insist(runs.cancel_queued, run.id, reason_of(exc), now=clock.utcnow())
            await _told_of_end(work)
        raise
    if again is None:
        return Done(await _told_of_end(work))
    seconds = (not_before - now).total_seconds()
    work.workshop.events.emit(RunRetries(run, not_before, seconds, work.told(outcome.message)))
    return Done(outcome, again=again)


async def _told_of_end(work: Work) -> Outcome:
    """Say that a run was cancelled before its next try, as the ledger has it; return that."""
    row = await work.workshop.store.insist_on_reading(ledger.run, work.run.id)
    outcome = Outcome.cancelled(Reason(row["reason"]) if row is not None else Reason.OPERATOR)
    work.workshop.events.emit(RunFinished(work.run, outcome, 0.0, work.job.heartbeat))
    return outcome


async def _ended(work: Work, outcome: Outcome, consequences: Consequences) -> tuple[Outcome, Ended]:
    """Write a run's end; return it, and what it brings about.

    An end that no database takes (a text that is no Unicode, say) becomes another one in plain words, since
    a row that stays `running` would block its job.
    """
    run, workshop = work.run, work.workshop

    async def written(end: Outcome) -> Ended:
        return await workshop.store.insist(
            runs.finish,
            run,
            end,
            now=clock.utcnow(),
            consequences=consequences,
            instance_id=workshop.instance_id,
        )

    try:
        return outcome, await asyncio.shield(written(outcome))
    except (FenceLost, Unavailable, OperationalError):
        raise
    except Exception as exc:  # whatever is wrong with this end, the run has to have one
        why = f"its end cannot be written as it is: {type(exc).__name__}"
        logger.error("run %d of %s: %s", run.id, run.job, why)
        failed = Outcome.failed(Reason.INTERNAL, why)
        return failed, await asyncio.shield(written(failed))


def _tell(work: Work, outcome: Outcome, ended: Ended, *, seconds: float) -> None:
    """Say how a run has ended, and what that has done to its job."""
    run, emit = work.run, work.workshop.events.emit
    if outcome.hold is not None and ended.hold is not None:
        emit(JobHeld(run.job, ended.hold.until, outcome.hold.reason, ended.hold.first))
    if ended.paused is not None:
        emit(JobPaused(run.job, ended.paused))
    emit(RunFinished(run, outcome, seconds, work.job.heartbeat))


async def _started(
    run: ClaimedRun, job: Job, workshop: Workshop
) -> tuple[_Begun, asyncio.CancelledError | None]:
    """Begin a try. A cancellation meanwhile is handed back: by then the row says `running`, or it goes on."""
    writing = asyncio.ensure_future(
        workshop.store.insist(_begin, run, primary=job.chain[0], instance_id=workshop.instance_id)
    )
    try:
        return await asyncio.shield(writing), None
    except asyncio.CancelledError as exc:
        try:
            return await writing, exc
        except NotYet:
            raise exc from None


async def _title(work: Work, outcome: Outcome) -> str | None:
    """Give a good answer a title, where the job wants one and somebody makes it; return that.

    The run has ended by now: whatever goes wrong here, a cancellation too, takes nothing from its success.
    """
    if outcome.state is not RunState.SUCCEEDED or outcome.output is None or work.job.title is None:
        return None
    title = None
    try:
        try:
            title = await work.helper(work.job.title, Purpose.TITLE).title(outcome.output)
        finally:
            given = work.workshop.store.write(runs.give_title, work.run, title, now=clock.utcnow())
            await asyncio.shield(given)
    except asyncio.CancelledError:
        return None
    except Exception as exc:  # no title is no failure, and a bug in making one is none of the run's
        why = work.told(f"{type(exc).__name__}: {exc}")
        logger.error("run %d of %s has no title: %s", work.run.id, work.run.job, why)
        return None
    return title


def reason_of(cancelled: asyncio.CancelledError | None) -> Reason:
    """Return why a run was cancelled: what the cancellation says, else that its process ends."""
    reason = cancelled.args[0] if cancelled and cancelled.args else None
    return reason if isinstance(reason, Reason) else Reason.SHUTDOWN
