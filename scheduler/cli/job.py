"""`promptd job list` and `show`: what the files say a job is, and what the database says happened to it."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from jobs import clock
from jobs.store import jobs as job_verbs
from jobs.store import ledger
from jobs.store.jobs import JobState
from scheduler.cli import words
from scheduler.cli.config import value_words
from scheduler.cli.context import Context
from scheduler.cli.job_next import anchored, following, has_ended, job_named, undecided_since
from scheduler.cli.params import JOB
from scheduler.cli.tables import Facts, Table, View, shown
from scheduler.cli.words import instant
from scheduler.config.effective import DEFAULT, job_keys
from scheduler.config.settings import ScheduledJob

_KEY_TITLES = ("KEY", "VALUE", "FROM")
_TITLES = ("JOB", "SCHEDULE", "STATE", "NEXT RUN", "LAST RUN", "FAILURES IN A ROW")


@click.command("list")
@shown
def list_(context: Context) -> View:
    """List every job and how it stands."""
    now = clock.utcnow()
    states, last = _happened(context)
    shapes = [
        job_shape(job, states.get(name), last.get(name), now=now)
        for name, job in sorted(context.settings.jobs.items())
    ]
    jobs = context.settings.jobs
    ended = {name for name, job in jobs.items() if has_ended(job, states.get(name))}
    lines = [_line(each, now, ended=each["name"] in ended) for each in shapes]
    return View(shapes, [Table(_TITLES, lines, none="no jobs")])


@click.command("show")
@click.argument("name", type=JOB)
@shown
def show(context: Context, name: str) -> View:
    """Show one job: its schedule, its chain, its prompt, and every key with the place it comes from."""
    now = clock.utcnow()
    job = job_named(context, name)
    states, last = _happened(context)
    keys = job_keys(context.loaded, name)
    shape = {**job_shape(job, states.get(name), last.get(name), now=now), **_definition(job), "keys": keys}
    written = [(key, value_words(leaf["value"]), leaf["from"]) for key, leaf in _written(keys)]
    prompt = [job.job.prompt.rstrip()] if job.job.prompt else []
    facts = _facts(shape, now, ended=has_ended(job, states.get(name)))
    return View(shape, [Facts(facts), Table(_KEY_TITLES, written), *prompt])


def _written(keys: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the keys that somebody has written, but for what is shown otherwise."""
    for key, leaf in keys.items():
        if leaf["from"] != DEFAULT and key not in ("prompt", "system"):
            yield key, leaf


def job_shape(
    job: ScheduledJob, state: JobState | None, last: Mapping[str, Any] | None, *, now: datetime
) -> dict[str, Any]:
    """Return a job as `job list --json` prints it."""
    paused = state is not None and state.paused_at is not None
    return {
        "name": job.name,
        "schedule": job.schedule.text if job.schedule else None,
        "timezone": job.timezone.key,
        "enabled": job.enabled,
        "paused": paused,
        "pause_reason": state.pause_reason if state else None,
        "held_until": instant(held_until(state, now=now)),
        "next_run_at": None if paused else instant(_next(job, state, now)),
        "last_run": _last_run(last),
        "consecutive_failures": state.consecutive_failures if state else 0,
    }


def held_until(state: JobState | None, *, now: datetime) -> datetime | None:
    """Return until when a job is held; a hold whose time has passed is not there."""
    if state is None or state.held_until is None or state.held_until <= now:
        return None
    return state.held_until


def _happened(context: Context) -> tuple[dict[str, JobState], dict[str, Mapping[str, Any]]]:
    with context.reading() as connection:
        return job_verbs.states(connection), ledger.last_run_of_each(connection)


def _next(job: ScheduledJob, state: JobState | None, now: datetime) -> datetime | None:
    if not job.enabled or has_ended(job, state):
        return None
    return next(following(anchored(job, state, now=now), undecided_since(state, now=now)), None)


def _last_run(last: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if last is None:
        return None
    return {"id": last["id"], "state": last["state"], "finished_at": instant(last["finished_at"])}


def _definition(job: ScheduledJob) -> dict[str, Any]:
    what = job.job
    return {
        "description": what.description,
        "tags": list(what.tags),
        "chain": [{"provider": t.provider, "model": t.model, "base_url": t.base_url} for t in what.chain],
        "fallback_on": sorted(what.fallback_on),
        "timeout": what.timeout.total_seconds(),
        "misfire_grace_time": job.misfire_grace_time.total_seconds() if job.misfire_grace_time else None,
        "catch_up": job.catch_up,
        "on_truncated": what.on_truncated,
        "repeat_safe": what.repeat_safe,
        "store_prompt": what.store_prompt,
        "system": what.system,
        "prompt": what.prompt,
    }


def _line(shape: Mapping[str, Any], now: datetime, *, ended: bool) -> tuple[object, ...]:
    last = shape["last_run"]
    return (
        shape["name"],
        shape["schedule"] or "by hand",
        _state(shape, ended=ended),
        _when(shape["next_run_at"], now),
        _last_words(last, now) if last else "",
        shape["consecutive_failures"] or "",
    )


def _state(shape: Mapping[str, Any], *, ended: bool) -> str:
    match shape:
        case {"enabled": False}:
            return "disabled"
        case _ if ended:
            return "ended"
        case {"paused": True, "pause_reason": reason}:
            return f"paused: {reason}" if reason else "paused"
        case {"held_until": str(until)}:
            return f"held until {until}"
        case _:
            return "enabled"


def _last_words(last: Mapping[str, Any], now: datetime) -> str:
    return f"{last['state']} {_when(last['finished_at'], now)}".strip()


def _when(moment: str | None, now: datetime) -> str:
    return words.ago(datetime.fromisoformat(moment), now=now) if moment else ""


def _facts(shape: Mapping[str, Any], now: datetime, *, ended: bool) -> list[tuple[str, object]]:
    last = shape["last_run"]
    chain = " → ".join(f"{each['provider']}/{each['model']}" for each in shape["chain"])
    next_run = f"{shape['next_run_at']} ({_when(shape['next_run_at'], now)})" if shape["next_run_at"] else ""
    return [
        ("job", shape["name"]),
        ("description", shape["description"]),
        ("tags", ", ".join(shape["tags"])),
        ("state", _state(shape, ended=ended)),
        ("schedule", f"{shape['schedule'] or 'by hand'}, {shape['timezone']}"),
        ("next run", next_run),
        ("last run", f"{last['id']} {_last_words(last, now)}" if last else "none yet"),
        ("failures in a row", shape["consecutive_failures"] or ""),
        ("chain", chain),
        ("falls back also on", ", ".join(shape["fallback_on"])),
        ("timeout", words.length(shape["timeout"])),
        ("catch up", str(shape["catch_up"])),
    ]
