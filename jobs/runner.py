"""`run_job`: the one way a prompt meets a model. Gather, render, complete, judge, title, finish: one line."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from jobs import clock, prompt
from jobs.attempt import Purpose
from jobs.auxiliary import Helper
from jobs.commands import Commands
from jobs.definition import Auxiliary, Job, OnTruncated
from jobs.errors import CommandFailed, CompressionFailed, FenceLost, TemplateError
from jobs.events import Events, JobHeld, RunFinished, RunStarted
from jobs.material import Material, collect
from jobs.overflow import Overflow, Shortened
from jobs.providers.call import Answered, Call, ChainExhausted, Drill
from jobs.providers.chain import Chain
from jobs.providers.openings import Opening
from jobs.providers.recovery import TOO_LONG
from jobs.request import Request
from jobs.run import HOLD_MARGIN, ClaimedRun, Hold, Outcome, Reason, RunState, Served, Trigger
from jobs.schema_repair import AnswerUnfit, conforming
from jobs.secret import Redactor
from jobs.store import runs
from jobs.store.store import Store
from jobs.target import Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a run is done with; made once by the composition root."""

    store: Store
    chain: Chain
    events: Events
    redactor: Redactor
    commands: Commands
    instance_id: int


@dataclass(frozen=True, slots=True)
class _Begun:
    """A run with its try's number, and when it began: by the calendar, and by `clock.monotonic`."""

    run: ClaimedRun
    at: datetime
    monotonic: float


def _begin(connection: Connection, run: ClaimedRun, *, primary: Target, instance_id: int) -> _Begun:
    """Begin a try when the writer comes to it: a run that waits for the writer is still queued."""
    at, monotonic = clock.utcnow(), clock.monotonic()
    number = runs.start(connection, run, primary=primary, instance_id=instance_id, now=at)
    return _Begun(replace(run, tries=number), at, monotonic)


@dataclass(frozen=True, slots=True)
class _Work:
    """One try of a run: what is done, with what, and until which moment of `clock.monotonic`."""

    run: ClaimedRun
    job: Job
    workshop: Workshop
    zone: ZoneInfo
    deadline: float
    drill: Drill | None

    def helper(self, task: Auxiliary, purpose: Purpose) -> Helper:
        """Return whoever does an auxiliary task for this try."""
        workshop = self.workshop
        return Helper(
            workshop.chain,
            task,
            purpose,
            self.run,
            self.job,
            deadline=self.deadline,
            redactor=workshop.redactor,
            drill=self.drill,
        )


async def run_job(
    run: ClaimedRun, job: Job, workshop: Workshop, *, zone: ZoneInfo, drill: Drill | None = None
) -> Outcome:
    """Do one try of a claimed run and write its end; return how it ended.

    Raises FenceLost when somebody else has taken the run over, and lets a cancellation through after it
    is written down. A cancellation with a `Reason` as its message ends the run with that reason; one that
    comes when the answer is there already ends only the search for a title.
    """
    begun, cancelled = await _started(run, job, workshop)
    run, started = begun.run, begun.monotonic
    waited = (begun.at - run.scheduled_for).total_seconds()
    workshop.events.emit(RunStarted(run, max(0.0, waited)))
    outcome = None
    if cancelled is None:
        work = _Work(run, job, workshop, zone, started + job.timeout.total_seconds(), drill)
        try:
            outcome = await _outcome(work)
            outcome = replace(outcome, title=await _title(work, outcome))
        except asyncio.CancelledError as exc:
            cancelled = exc
    if outcome is None:
        outcome = Outcome.cancelled(_reason_of(cancelled))
    first = await asyncio.shield(workshop.store.insist(runs.finish, run, outcome, now=clock.utcnow()))
    if outcome.hold is not None:
        workshop.events.emit(JobHeld(run.job, outcome.hold.until, outcome.hold.reason, first))
    workshop.events.emit(RunFinished(run, outcome, clock.monotonic() - started))
    if cancelled is not None and outcome.state is RunState.CANCELLED:
        raise cancelled
    return outcome


async def _started(
    run: ClaimedRun, job: Job, workshop: Workshop
) -> tuple[_Begun, asyncio.CancelledError | None]:
    """Begin a try. A cancellation meanwhile is handed back: by then the row says `running`."""
    writing = asyncio.ensure_future(
        workshop.store.insist(_begin, run, primary=job.chain[0], instance_id=workshop.instance_id)
    )
    try:
        return await asyncio.shield(writing), None
    except asyncio.CancelledError as exc:
        return await writing, exc


async def _outcome(work: _Work) -> Outcome:
    job, workshop = work.job, work.workshop
    clean = workshop.redactor.clean
    try:
        async with asyncio.timeout(max(0.0, work.deadline - clock.monotonic())):
            material = await collect(
                job, commands=workshop.commands, store=workshop.store, redactor=workshop.redactor
            )
            render = partial(_render, work, template_names(work.run, job, now=clock.utcnow()))
            request = await render(material)
            await _keep(work, request)
            helper = work.helper(job.compression, Purpose.COMPRESSION) if job.compression else None
            overflow = Overflow(job.on_overflow, material, helper, render, keep=partial(_keep, work))
            return await _answered(work, request, overflow)
    except TimeoutError:
        return Outcome.timed_out(
            f"no answer within {_in_words(job.timeout)}; raise the job's timeout to wait longer"
        )
    except CommandFailed as exc:
        return Outcome.failed(Reason.GATHER, clean(str(exc)))
    except TemplateError as exc:
        return Outcome.failed(Reason.TEMPLATE, str(exc))
    except CompressionFailed as exc:
        return Outcome.failed(Reason.COMPRESSION, clean(str(exc)))
    except FenceLost:
        raise
    except Exception as exc:  # a bug ends this run, visibly, and no other
        return Outcome.failed(Reason.INTERNAL, clean(f"{type(exc).__name__}: {exc}"))


async def _render(work: _Work, names: Mapping[str, Any], material: Material) -> Request:
    """Fill the job's templates; the same names with other material give the same instructions."""
    job, names = work.job, {**names, **material.names}
    text = await asyncio.to_thread(prompt.render, job.prompt, zone=work.zone, names=names)
    if not text.strip():
        raise TemplateError("the prompt is empty")
    system = (
        await asyncio.to_thread(prompt.render, job.system, zone=work.zone, names=names)
        if job.system
        else None
    )
    return Request(text, system, job.parameters)


async def _keep(work: _Work, request: Request, shortened: Shortened | None = None) -> None:
    """Write down what the model is shown, and what was made shorter for it."""
    store, text = work.workshop.store, work.workshop.redactor.clean(request.prompt)
    if work.job.store_prompt:
        await store.insist(runs.keep_prompt, work.run, text)
    if shortened is not None:
        await store.insist(runs.keep_shortened, work.run, shortened.before, shortened.after)


async def _answered(work: _Work, request: Request, overflow: Overflow) -> Outcome:
    """Ask the chain, and return what its answer, or the lack of one, means for the run."""
    workshop, call = work.workshop, _call(work, overflow)
    redactor, on_truncated = workshop.redactor, work.job.on_truncated
    try:
        answered = await workshop.chain.complete(request, call)
        answered = await conforming(
            answered, call, workshop.chain, on_truncated=on_truncated, redactor=redactor
        )
    except AnswerUnfit as exc:
        last = exc.answered.completion
        said, output = redactor.clean(str(exc)), redactor.own(last.text)
        return Outcome.failed(Reason.SCHEMA, said, output=output, truncated=last.truncated)
    except ChainExhausted as exc:
        too_long = any(left.error_class in TOO_LONG for left in exc.left)
        said = f"{exc}; {overflow.advice}" if too_long else str(exc)
        hold = _hold_of(work.run, exc.opening)
        return Outcome.failed(exc.error_class, workshop.redactor.clean(said), hold=hold)
    return _judge(work.job, answered, workshop.redactor)


async def _title(work: _Work, outcome: Outcome) -> str | None:
    """Return a title for a good answer, where the job wants one and somebody gives it."""
    if outcome.state is not RunState.SUCCEEDED or outcome.output is None or work.job.title is None:
        return None
    try:
        return await work.helper(work.job.title, Purpose.TITLE).title(outcome.output)
    except Exception as exc:  # an answer is never lost for want of a title, not to a bug either
        why = work.workshop.redactor.clean(f"{type(exc).__name__}: {exc}")
        logger.error("run %d of %s has no title: %s", work.run.id, work.run.job, why)
        return None


def template_names(run: ClaimedRun, job: Job, *, now: datetime) -> Mapping[str, Any]:
    """Return what a prompt may name besides its material; see `prompt.NAMES`."""
    return {
        "job": job.name,
        "scheduled_for": run.scheduled_for,
        "now": now,
        "vars": {**job.vars, **run.vars},
    }


def _hold_of(run: ClaimedRun, opening: Opening | None) -> Hold | None:
    """Return the hold of a job whose whole chain is closed for a known time; asking by hand holds nothing."""
    if opening is None or run.trigger in (Trigger.ASK, Trigger.DRILL):
        return None
    return Hold(opening.at + HOLD_MARGIN, opening.closed, str(opening))


def _call(work: _Work, overflow: Overflow) -> Call:
    run, job = work.run, work.job
    return Call(
        targets=job.chain,
        deadline=work.deadline,
        run_id=run.id,
        tries=run.tries,
        fallback_on=job.fallback_on,
        repeat_safe=job.repeat_safe,
        shrink=overflow.shrink,
        drill=work.drill,
        through_closed=run.probe,
    )


def _judge(job: Job, answered: Answered, redactor: Redactor) -> Outcome:
    """Return how an answered run ends; a model's words are kept but for our own secrets."""
    completion, attempt = answered.completion, answered.attempt
    text = redactor.own(completion.text)
    if completion.truncated and job.on_truncated is OnTruncated.FAIL:
        return Outcome.failed(
            Reason.TRUNCATED,
            "the answer was cut at the output limit; raise parameters.max_output_tokens",
            output=text,
            truncated=True,
        )
    return Outcome.succeeded(
        text,
        served=Served(attempt.target.provider, attempt.target.model, attempt.credential.label),
        truncated=completion.truncated,
        fallback=attempt.target_index > 0,
        fallback_reason=answered.fallback_reason,
    )


def _reason_of(cancelled: asyncio.CancelledError | None) -> Reason:
    reason = cancelled.args[0] if cancelled and cancelled.args else None
    return reason if isinstance(reason, Reason) else Reason.SHUTDOWN


def _in_words(length: timedelta) -> str:
    return f"{length.total_seconds():g} s"
