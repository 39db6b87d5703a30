"""`run_job`: the one way a prompt meets a model. Start, render, complete, finish: a straight line."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from jobs import clock, prompt
from jobs.definition import Job, OnTruncated
from jobs.errors import FenceLost, TemplateError
from jobs.events import Events, RunFinished, RunStarted
from jobs.providers.call import Answered, Call, ChainExhausted
from jobs.providers.chain import Chain
from jobs.request import Request
from jobs.run import ClaimedRun, Outcome, Reason, Served
from jobs.secret import Redactor
from jobs.store import runs
from jobs.store.store import Store
from jobs.target import Target


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a run is done with; made once by the composition root."""

    store: Store
    chain: Chain
    events: Events
    redactor: Redactor
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


async def run_job(run: ClaimedRun, job: Job, workshop: Workshop, *, zone: ZoneInfo) -> Outcome:
    """Do one try of a claimed run and write its end; return how it ended.

    Raises FenceLost when somebody else has taken the run over, and lets a cancellation through after it
    is written down. A cancellation with a `Reason` as its message ends the run with that reason.
    """
    begun, cancelled = await _started(run, job, workshop)
    run, started = begun.run, begun.monotonic
    waited = (begun.at - run.scheduled_for).total_seconds()
    workshop.events.emit(RunStarted(run, max(0.0, waited)))
    if cancelled is None:
        try:
            outcome = await _outcome(run, job, workshop, zone, started)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        outcome = Outcome.cancelled(_reason_of(cancelled))
    await asyncio.shield(workshop.store.insist(runs.finish, run, outcome, now=clock.utcnow()))
    workshop.events.emit(RunFinished(run, outcome, clock.monotonic() - started))
    if cancelled is not None:
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


async def _outcome(run: ClaimedRun, job: Job, workshop: Workshop, zone: ZoneInfo, started: float) -> Outcome:
    deadline = started + job.timeout.total_seconds()
    try:
        async with asyncio.timeout(max(0.0, deadline - clock.monotonic())):
            request = await _render(run, job, zone)
            if job.store_prompt:
                await workshop.store.insist(runs.keep_prompt, run, workshop.redactor.clean(request.prompt))
            answered = await workshop.chain.complete(request, _call(run, job, deadline))
            return _judge(job, answered, workshop.redactor)
    except TimeoutError:
        return Outcome.timed_out(
            f"no answer within {_in_words(job.timeout)}; raise the job's timeout to wait longer"
        )
    except TemplateError as exc:
        return Outcome.failed(Reason.TEMPLATE, str(exc))
    except ChainExhausted as exc:
        return Outcome.failed(exc.error_class, workshop.redactor.clean(str(exc)))
    except FenceLost:
        raise
    except Exception as exc:  # a bug ends this run, visibly, and no other
        return Outcome.failed(Reason.INTERNAL, workshop.redactor.clean(f"{type(exc).__name__}: {exc}"))


async def _render(run: ClaimedRun, job: Job, zone: ZoneInfo) -> Request:
    names = template_names(run, job, now=clock.utcnow())
    text = await asyncio.to_thread(prompt.render, job.prompt, zone=zone, names=names)
    if not text.strip():
        raise TemplateError("the prompt is empty")
    system = (
        await asyncio.to_thread(prompt.render, job.system, zone=zone, names=names) if job.system else None
    )
    return Request(text, system, job.parameters)


def template_names(run: ClaimedRun, job: Job, *, now: datetime) -> Mapping[str, Any]:
    """Return what a prompt may name; see `prompt.NAMES`."""
    return {
        "job": job.name,
        "scheduled_for": run.scheduled_for,
        "now": now,
        "vars": {**job.vars, **run.vars},
    }


def _call(run: ClaimedRun, job: Job, deadline: float) -> Call:
    return Call(
        targets=job.chain,
        deadline=deadline,
        run_id=run.id,
        tries=run.tries,
        fallback_on=job.fallback_on,
        repeat_safe=job.repeat_safe,
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


def _reason_of(cancelled: asyncio.CancelledError) -> Reason:
    reason = cancelled.args[0] if cancelled.args else None
    return reason if isinstance(reason, Reason) else Reason.SHUTDOWN


def _in_words(length: timedelta) -> str:
    return f"{length.total_seconds():g} s"
