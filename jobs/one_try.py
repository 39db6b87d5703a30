"""One try of a run, from its condition to its outcome: material, prompt, chain, verdict."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from jobs import clock, prompt
from jobs.attempt import Purpose
from jobs.budget import day_begins, within
from jobs.definition import Job, OnTruncated
from jobs.errors import CommandFailed, CompressionFailed, FenceLost, TemplateError
from jobs.material import Material, collect
from jobs.overflow import Overflow, Shortened
from jobs.prompt_file import with_texts
from jobs.providers.call import Answered, Call, ChainExhausted
from jobs.providers.openings import Opening
from jobs.providers.recovery import TOO_LONG
from jobs.redaction import redacted
from jobs.request import Request
from jobs.run import ClaimedRun, Hold, Outcome, Reason, Served, Trigger
from jobs.sandbox import LONGEST_RENDERING
from jobs.schema_repair import AnswerUnfit, conforming
from jobs.store import ledger, runs
from jobs.workshop import Work

_GRACE = 1.0  # seconds in which the run's deadline, which says more, ends a template that goes on and on


async def outcome_of(work: Work) -> Outcome:
    """Do the work of one try; return how it has ended. Raises FenceLost when the run is not ours any more."""
    try:
        async with asyncio.timeout(max(0.0, work.deadline - clock.monotonic())):
            return await _unless_idle(work) or await _asked(await _prepared(work))
    except TimeoutError:
        return Outcome.timed_out(
            f"no answer within {_in_words(work.job.timeout)}; raise the job's timeout to wait longer"
        )
    except CommandFailed as exc:
        return Outcome.failed(Reason.GATHER, work.told(exc))
    except TemplateError as exc:
        return Outcome.failed(Reason.TEMPLATE, work.told(exc))
    except CompressionFailed as exc:
        return Outcome.failed(Reason.COMPRESSION, work.told(exc))
    except FenceLost:
        raise
    except Exception as exc:  # a bug ends this run, visibly, and no other
        return Outcome.failed(Reason.INTERNAL, work.told(f"{type(exc).__name__}: {exc}"))


async def _unless_idle(work: Work) -> Outcome | None:
    """Return the end of a run with nothing to do, or nothing left to do it with; None where it goes on."""
    if work.job.max_tokens_per_day is not None and await _tokens_left(work) <= 0:
        return Outcome.skipped(Reason.BUDGET)
    if work.job.condition is None:
        return None
    try:
        code = await work.workshop.commands.code_of(work.job.condition)
    except CommandFailed as exc:
        return Outcome.failed(Reason.CONDITION, work.told(exc))
    return Outcome.skipped() if code else None


async def _tokens_left(work: Work) -> int:
    since = day_begins(clock.utcnow(), work.zone)
    most = work.job.max_tokens_per_day or 0
    store = work.workshop.store
    return most - await store.insist_on_reading(ledger.tokens_used, work.job.name, since=since)


async def _prepared(work: Work) -> Work:
    """Return the work with the texts of the job's files, and with what is left to it as its output limit."""
    job = work.job
    if job.prompt_file is not None or job.system_file is not None:
        job = await asyncio.to_thread(with_texts, job)
    if job.max_tokens_per_day is not None:
        job = within(job, max(1, await _tokens_left(work)))
    return replace(work, job=job)


async def _asked(work: Work) -> Outcome:
    """Gather, fill the templates, ask, and judge the answer."""
    job, workshop = work.job, work.workshop
    material = await collect(
        job, commands=workshop.commands, store=workshop.store, redactor=workshop.redactor
    )
    render = partial(_render, work, template_names(work.run, job, now=clock.utcnow()))
    request = await render(material)
    await _keep(work, request)
    helper = work.helper(job.compression, Purpose.COMPRESSION) if job.compression else None
    overflow = Overflow(job.on_overflow, material, helper, render, keep=partial(_keep, work))
    return await _answered(work, request, overflow)


async def _render(work: Work, names: Mapping[str, Any], material: Material) -> Request:
    """Fill the job's templates; the same names with other material give the same instructions."""
    left = work.deadline - clock.monotonic()
    fill = partial(rendered, zone=work.zone, within=min(left + _GRACE, LONGEST_RENDERING))
    return await asyncio.to_thread(fill, work.job, {**names, **material.names})


async def _keep(work: Work, request: Request, shortened: Shortened | None = None) -> None:
    """Write down what the model is shown, and what was made shorter for it."""
    store = work.workshop.store
    if work.job.store_prompt:
        text = await redacted(partial(work.workshop.redactor.clean, is_cut=False), request.prompt)
        await store.insist(runs.keep_prompt, work.run, text)
    if shortened is not None:
        await store.insist(runs.keep_shortened, work.run, shortened.before, shortened.after)


async def _answered(work: Work, request: Request, overflow: Overflow) -> Outcome:
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
        return Outcome.failed(Reason.SCHEMA, work.told(exc), output=last.text, truncated=last.truncated)
    except ChainExhausted as exc:
        too_long = any(left.error_class in TOO_LONG for left in exc.left)
        said = f"{exc}; {overflow.advice}" if too_long else str(exc)
        hold = _hold_of(work.run, exc.opening)
        return Outcome.failed(exc.error_class, work.told(said), hold=hold)
    return _judge(work.job, answered)


def rendered(
    job: Job, names: Mapping[str, Any], *, zone: ZoneInfo, within: float = LONGEST_RENDERING
) -> Request:
    """Return what is asked of the model; raises TemplateError. CPU-bound: call it off the loop.

    `within` is in seconds, for each of its two templates.
    """
    text = prompt.render(job.prompt, zone=zone, names=names, within=within)
    if not text.strip():
        raise TemplateError("the prompt is empty")
    system = prompt.render(job.system, zone=zone, names=names, within=within) if job.system else None
    return Request(text, system, job.parameters)


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


def _call(work: Work, overflow: Overflow) -> Call:
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


def _judge(job: Job, answered: Answered) -> Outcome:
    """Return how an answered run ends."""
    completion, attempt = answered.completion, answered.attempt
    if completion.truncated and job.on_truncated is OnTruncated.FAIL:
        return Outcome.failed(
            Reason.TRUNCATED,
            "the answer was cut at the output limit; raise parameters.max_output_tokens",
            output=completion.text,
            truncated=True,
        )
    return Outcome.succeeded(
        completion.text,
        served=Served(attempt.target.provider, attempt.target.model, attempt.credential.label),
        truncated=completion.truncated,
        fallback=attempt.target_index > 0,
        fallback_reason=answered.fallback_reason,
    )


def _in_words(length: timedelta) -> str:
    return f"{length.total_seconds():g} s"
