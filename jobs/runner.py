"""`run_job`: the one way a prompt meets a model. Gather, render, complete, judge, title, finish: one line."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from jobs import clock, prompt
from jobs.attempt import Purpose
from jobs.auxiliary import Helper
from jobs.commands import Commands
from jobs.definition import Auxiliary, Job, OnTruncated
from jobs.errors import CommandFailed, CompressionFailed, FenceLost, TemplateError, Unavailable
from jobs.events import Events, JobHeld, RunFinished, RunStarted
from jobs.material import Material, collect
from jobs.overflow import Overflow, Shortened
from jobs.providers.call import Answered, Call, ChainExhausted, Drill, Rest
from jobs.providers.chain import Chain
from jobs.providers.openings import Opening
from jobs.providers.recovery import TOO_LONG
from jobs.redaction import redacted
from jobs.request import Request
from jobs.run import ClaimedRun, Hold, Outcome, Reason, RunState, Served, Trigger
from jobs.schema_repair import AnswerUnfit, conforming
from jobs.secret import Redactor
from jobs.store import runs
from jobs.store.holds import NewHold
from jobs.store.store import Store
from jobs.target import Target

_LONGEST_TOLD = 8_000  # characters of an error's text, which may quote anything
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
    rest: Rest

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
    run: ClaimedRun,
    job: Job,
    workshop: Workshop,
    *,
    zone: ZoneInfo,
    drill: Drill | None = None,
    rest: Rest = nullcontext,
) -> Outcome:
    """Do one try of a claimed run and write its end; return how it ended.

    Raises FenceLost when somebody else has taken the run over, and lets a cancellation through after it
    is written down. A cancellation with a `Reason` as its message ends the run with that reason; one that
    comes when the answer is there already ends only the search for a title: the success is written before
    that begins. `rest` is entered while the run waits for a closed chain to open.
    """
    begun, cancelled = await _started(run, job, workshop)
    run, started = begun.run, begun.monotonic
    waited = (begun.at - run.scheduled_for).total_seconds()
    workshop.events.emit(RunStarted(run, max(0.0, waited)))
    work = _Work(run, job, workshop, zone, started + job.timeout.total_seconds(), drill, rest)
    outcome = None
    if cancelled is None:
        try:
            outcome = await _outcome(work)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if outcome is None:
        outcome = Outcome.cancelled(_reason_of(cancelled))
    outcome, held = await _ended(run, outcome, workshop)
    if outcome.hold is not None and held is not None:
        workshop.events.emit(JobHeld(run.job, held.until, outcome.hold.reason, held.first))
    workshop.events.emit(RunFinished(run, outcome, clock.monotonic() - started))
    if cancelled is not None:
        raise cancelled
    return replace(outcome, title=await _title(work, outcome))


async def _ended(run: ClaimedRun, outcome: Outcome, workshop: Workshop) -> tuple[Outcome, NewHold | None]:
    """Write a run's end; return it, and the hold that it brings.

    An end that no database takes (a text that is no Unicode, say) becomes another one in plain words, since
    a row that stays `running` would block its job.
    """
    insist = workshop.store.insist
    try:
        return outcome, await asyncio.shield(insist(runs.finish, run, outcome, now=clock.utcnow()))
    except (FenceLost, Unavailable, OperationalError):
        raise
    except Exception as exc:  # whatever is wrong with this end, the run has to have one
        why = f"its end cannot be written as it is: {type(exc).__name__}"
        logger.error("run %d of %s: %s", run.id, run.job, why)
        failed = Outcome.failed(Reason.INTERNAL, why)
        return failed, await asyncio.shield(insist(runs.finish, run, failed, now=clock.utcnow()))


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
        return Outcome.failed(Reason.GATHER, _told(work, exc))
    except TemplateError as exc:
        return Outcome.failed(Reason.TEMPLATE, str(exc))
    except CompressionFailed as exc:
        return Outcome.failed(Reason.COMPRESSION, _told(work, exc))
    except FenceLost:
        raise
    except Exception as exc:  # a bug ends this run, visibly, and no other
        return Outcome.failed(Reason.INTERNAL, _told(work, f"{type(exc).__name__}: {exc}"))


def _told(work: _Work, what: object) -> str:
    """Return the words of an error, which may quote anything, cut to a length and without secrets."""
    return work.workshop.redactor.clean(str(what)[:_LONGEST_TOLD])


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
    store = work.workshop.store
    if work.job.store_prompt:
        text = await redacted(work.workshop.redactor.clean, request.prompt)
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
        output = await redacted(redactor.own, last.text)
        return Outcome.failed(Reason.SCHEMA, _told(work, exc), output=output, truncated=last.truncated)
    except ChainExhausted as exc:
        too_long = any(left.error_class in TOO_LONG for left in exc.left)
        said = f"{exc}; {overflow.advice}" if too_long else str(exc)
        hold = _hold_of(work.run, exc.opening)
        return Outcome.failed(exc.error_class, _told(work, said), hold=hold)
    return _judge(work.job, answered, await redacted(redactor.own, answered.completion.text))


async def _title(work: _Work, outcome: Outcome) -> str | None:
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
            await asyncio.shield(work.workshop.store.write(runs.give_title, work.run, title))
    except asyncio.CancelledError:
        return None
    except Exception as exc:  # no title is no failure, and a bug in making one is none of the run's
        why = _told(work, f"{type(exc).__name__}: {exc}")
        logger.error("run %d of %s has no title: %s", work.run.id, work.run.job, why)
        return None
    return title


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
    return Hold(opening.at, opening.closed, str(opening))


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
        rest=work.rest,
    )


def _judge(job: Job, answered: Answered, text: str) -> Outcome:
    """Return how an answered run ends; `text` is what the model said, without our own secrets."""
    completion, attempt = answered.completion, answered.attempt
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
