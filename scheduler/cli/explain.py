"""`promptd explain`: whom a run would ask now, and why each one before it is passed over. Nothing is sent."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from jobs import clock
from jobs.definition import Job
from jobs.errors import ConfigError, ErrorClass, Fault
from jobs.mark import FOR_EVER
from jobs.providers.call import Call
from jobs.providers.explain import Candidate, Explanation, Part, Seen
from jobs.providers.explain import explain as explained
from jobs.store import holds
from jobs.store.holds import HeldJob
from scheduler.cli import words
from scheduler.cli.context import Context
from scheduler.cli.job_next import job_named
from scheduler.cli.params import JOB
from scheduler.cli.secrets import Look, look, own_key_missing
from scheduler.cli.tables import Block, Table, View, shown
from scheduler.cli.words import instant

_TITLES = ("#", "TARGET", "STATE", "CREDENTIAL", "STANDS", "WHY")


@click.command("explain")
@click.argument("name", metavar="JOB", type=JOB)
@shown
def explain(context: Context, name: str) -> View:
    """Say which target and credential a run of JOB would use now. No request is made.

    The targets and credentials before it are listed with what closes them, until when, and who said so.
    """
    job = job_named(context, name).job
    vault = _vault(context)
    with context.reading() as connection:
        now = clock.utcnow()
        held = holds.held(connection).get(name)
        found = explained(connection, context.registry, vault.vault, _call(job), now=now)
    if held is not None and held.held_until <= now:
        held = None
    return View(explanation_shape(name, found, held), _blocks(name, job, found, held, now))


def _call(job: Job) -> Call:
    deadline = clock.monotonic() + job.timeout.total_seconds()
    return Call(job.chain, deadline, fallback_on=job.fallback_on)


def _vault(context: Context) -> Look:
    """Return the vault that a run here would open; raises ConfigError where it could not."""
    looked, settings = look(context), context.settings
    if looked.trouble is None or own_key_missing(settings):
        return looked
    mend = "name a readable secret of 32 characters or more"
    raise ConfigError([Fault(settings.source, 0, 0, "secret_key", looked.trouble, mend)])


def explanation_shape(name: str, found: Explanation, held: HeldJob | None) -> dict[str, Any]:
    """Return an explanation as `explain --json` prints it."""
    return {
        "job": name,
        "held": {"until": instant(held.held_until), "reason": held.hold_reason} if held else None,
        "uses": _use_shape(found.used) if found.used else None,
        "waits_until": instant(found.opening.at) if found.opening and found.waits else None,
        "fails": found.fails,
        "opens_at": instant(found.opening.at) if found.opening else None,
        "targets": [_target_shape(each) for each in found.targets],
    }


def _use_shape(seen: Seen) -> dict[str, Any]:
    return {
        **_named(seen),
        "credentials": [each.credential.label for each in seen.used],
        "refreshes": [each.credential.label for each in seen.used if each.refreshes],
    }


def _named(seen: Seen) -> dict[str, Any]:
    target = seen.target
    return {
        "index": seen.index,
        "provider": target.provider,
        "model": target.model,
        "base_url": target.base_url,
    }


def _target_shape(seen: Seen) -> dict[str, Any]:
    return {
        **_named(seen),
        "stands": seen.part,
        "class": seen.error_class,
        "message": seen.message,
        "credentials": [_candidate_shape(each) for each in seen.candidates],
    }


def _candidate_shape(each: Candidate) -> dict[str, Any]:
    mark = each.closed.mark if each.closed else None
    timed = each.closed is not None and each.closed.until != FOR_EVER
    return {
        "label": each.credential.label,
        "kind": each.credential.kind,
        "stands": each.part,
        "status": mark.status if mark else None,
        "class": mark.error_class if mark else None,
        "code": mark.code if mark else None,
        "scope": mark.scope if mark else None,
        "until": instant(each.closed.until) if each.closed and timed else None,
        "until_source": mark.until_source if mark and timed else None,
        "attempt_id": mark.attempt_id if mark else None,
        "refreshes": each.refreshes,
        "why": each.why,
    }


def _blocks(name: str, job: Job, found: Explanation, held: HeldJob | None, now: datetime) -> list[Block]:
    rows = [row for each in found.targets for row in _rows(each, now)]
    said = [_headline(name, job, found, now)]
    if held is not None:
        said.insert(0, _held_words(name, found, held, now))
    return ["\n".join(said), Table(_TITLES, rows)]


def _held_words(name: str, found: Explanation, held: HeldJob, now: datetime) -> str:
    until = f"{words.moment(held.held_until)}, for {words.length(held.held_until - now)}"
    over = "; its targets are not all closed any more, so the hold is about to end"
    opened = over if found.opening is None and found.used else ""
    return f"{name} is held until {until}: {held.hold_reason}{opened}; instants meanwhile are skipped"


def _headline(name: str, job: Job, found: Explanation, now: datetime) -> str:
    if found.used is not None:
        wait = ""
        if found.waits and found.opening is not None:
            until = f"until {words.moment(found.opening.at)}, for {words.length(found.opening.at - now)}"
            wait = f"wait, since every target is closed, {until}; then "
        return f"a run of {name} now would {wait}ask {_used_words(found.used)}"
    fails = f"a run of {name} now would ask nobody and fail with {found.fails}"
    if found.fails is ErrorClass.CONFIG_ERROR and found.fails not in job.fallback_on:
        return f"{fails}: a first target without a key is a mistake that no fallback covers up"
    if found.opening is not None:
        at, opens_in = words.moment(found.opening.at), words.length(found.opening.at - now)
        return f"{fails}: {found.opening.target} opens first, at {at}, in {opens_in}; the job would be held"
    return f"{fails}: nothing opens by itself; see `promptd auth list`"


def _used_words(used: Seen) -> str:
    labels = [each.credential.label for each in used.used]
    by_chance = f"one of {', '.join(labels)} (strategy random)" if len(labels) > 1 else labels[0]
    refreshed = [each.credential.label for each in used.used if each.refreshes]
    first = f", after a refresh of the login {' or '.join(refreshed)}" if refreshed else ""
    return f"{used.target} with the credential {by_chance}{first}"


def _rows(seen: Seen, now: datetime) -> Iterator[tuple[object, ...]]:
    here = (seen.index + 1, seen.target, _part_words(seen.part))
    if not seen.candidates:
        yield (*here, "", "", seen.message)
    for number, each in enumerate(seen.candidates):
        place = here if number == 0 else ("", "", "")
        yield (*place, each.credential.label, _part_words(each.part), _why(each, now))


_PARTS: Mapping[Part, str] = {Part.OPEN: "in reserve", Part.LOST: "ended"}


def _part_words(part: Part) -> str:
    return _PARTS.get(part, str(part).replace("_", " "))


def _why(each: Candidate, now: datetime) -> str:
    if each.closed is not None and each.closed.mark is not None:
        return words.closing(each.closed.mark, each.closed.until, kind=each.credential.kind, now=now)
    return each.why or ("refreshed first" if each.refreshes else "")
