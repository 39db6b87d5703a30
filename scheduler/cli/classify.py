"""`promptd classify`: what a provider's answer means, which rule says so, and what would be done about it."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from jobs import clock
from jobs.attempt import Step
from jobs.credential import CredentialKind
from jobs.definition import DEFAULT_TIMEOUT
from jobs.errors import ErrorClass, UsageError
from jobs.mark import DEFAULT_SOURCE, NewMark
from jobs.providers.answer import Answer, Origin, TransportFailure, Verdict
from jobs.providers.api_modes import MODES, sse_events
from jobs.providers.classify import classify as meaning
from jobs.providers.recovery import (
    MOST_REQUESTS,
    RECOVERY,
    Recovery,
    Situation,
    Visit,
    goes_on,
    next_at_target,
)
from jobs.providers.registry import Provider, Registry, UnknownProvider
from jobs.providers.rules import Rules
from scheduler.cli import words
from scheduler.cli.context import Context
from scheduler.cli.params import PROVIDER
from scheduler.cli.tables import Facts, View, shown
from scheduler.cli.words import Moment, instant

_NONE = "none"
_LARGEST = 16 * 1024 * 1024
_EVENT_STREAM = "text/event-stream"
_FIRST_ERROR = 400


@click.command("classify")
@click.option("--provider", "spelled", type=PROVIDER, required=True, help="Who answered, in any spelling.")
@click.option("--status", type=click.IntRange(100, 599), help="The HTTP status.")
@click.option("--body", type=click.Path(), metavar="FILE", help="The body; - reads standard input.")
@click.option("--header", "headers", multiple=True, metavar="K=V", help="A header of the answer; repeats.")
@click.option("--now", "at", type=Moment(), help="When the answer came (ISO, UTC); default: now.")
@click.option(
    "--exception", "failure", type=click.Choice([*map(str, TransportFailure)]), help="No answer came: why."
)
@click.option("--token-endpoint", is_flag=True, help="The answer came from a token endpoint.")
@shown
def classify(
    context: Context,
    spelled: str,
    status: int | None,
    body: str | None,
    headers: tuple[str, ...],
    at: datetime | None,
    failure: str | None,
    token_endpoint: bool,
) -> View:
    """Say what a provider's answer means. No request is made, and no configuration is needed."""
    if (status is None) == (failure is None):
        raise UsageError("give either --status, with --body and --header, or --exception")
    if failure is not None and (body is not None or headers):
        raise UsageError("--exception is an answer that never came: it has no --body and no --header")
    answer = Answer(
        status,
        _headers(headers),
        _content(body) if body is not None else b"",
        TransportFailure(failure) if failure else None,
        Origin.TOKEN if token_endpoint else Origin.MODEL,
    )
    registry = context.any_registry
    provider = _provider(registry, spelled)
    now = at or clock.utcnow()
    answer = _settled(answer, provider)
    verdict = meaning(answer, provider.name, _rules(registry), now=now)
    shape = verdict_shape(verdict, provider, answer, now=now)
    return View(shape, [Facts(_facts(shape, verdict, now))])


def _content(file: str) -> bytes:
    """Return what a file holds, or a pipe that somebody writes to already; `-` is standard input.

    Raises UsageError where there is nothing to read; nobody waits for a writer who may never come.
    """
    if file == "-":
        with click.open_file(file, "rb") as given:
            return bytes(given.read(_LARGEST))
    try:
        number = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        with open(number, "rb") as stream:
            os.set_blocking(number, True)
            content = stream.read(_LARGEST)
    except OSError as exc:
        raise UsageError(f"cannot read {file}: {exc.strerror}; name another file for --body") from exc
    named = not file.startswith("/dev/fd/")  # a shell's own pipe has had its writer
    if not content and named and Path(file).is_fifo():
        raise UsageError(f"nobody writes into {file}; name another file for --body")
    return content


def verdict_shape(verdict: Verdict, provider: Provider, answer: Answer, *, now: datetime) -> dict[str, Any]:
    """Return a verdict as `classify --json` prints it."""
    row = RECOVERY[verdict.error_class] if verdict.error_class else Recovery()
    wait = verdict.wait
    return {
        "class": verdict.error_class or _NONE,
        "rule": verdict.rule,
        "provider": provider.name,
        "wait": round((wait.until - now).total_seconds(), 3) if wait else None,
        "wait_until": instant(wait.until) if wait else None,
        "wait_source": wait.source if wait else None,
        "scope": row.scope,
        "mark_until": instant(_mark_until(verdict, row, now)),
        "recovery": _recovery(verdict, provider, answer, now),
    }


def _settled(answer: Answer, provider: Provider) -> Answer:
    """Return a stream as the document that its events add up to, as the client hands it on."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _EVENT_STREAM or answer.status is None or answer.status >= _FIRST_ERROR:
        return answer
    events = sse_events(answer.body.decode("utf-8", "replace"))
    return replace(answer, body=json.dumps(MODES[provider.api_mode].document_of(events)).encode())


def _mark_until(verdict: Verdict, row: Recovery, now: datetime) -> datetime | None:
    """Return when a first mark for this answer ends; None where no mark is made, or no time ends it.

    A class that is marked only after several failures in a row is not marked for this one.
    """
    if verdict.error_class is None or row.scope is None or row.marks_after > 1:
        return None
    stated = verdict.wait if row.believes_hint else None
    mark = NewMark(
        row.scope,
        verdict.error_class,
        row.ladder,
        stated=stated.until if stated else None,
        source=stated.source if stated else DEFAULT_SOURCE,
        lasts_from_step=row.lasts_from_step,
    )
    return mark.until(1, now=now)


def _recovery(verdict: Verdict, provider: Provider, answer: Answer, now: datetime) -> Step | None:
    """Return what follows a first failure of this class, as the chain would do it for a job with defaults."""
    if verdict.error_class is None:
        return None
    is_login = bool(provider.credentials) and all(
        each.kind is CredentialKind.OAUTH for each in provider.credentials
    )
    situation = Situation(
        label=provider.credentials[0].label if provider.credentials else "",
        quota_group="",
        left=DEFAULT_TIMEOUT,
        requests_left=MOST_REQUESTS - 1,
        can_refresh=is_login and answer.origin is Origin.MODEL,
        verifiable=answer.failure is not TransportFailure.TLS,
        may_retry=verdict.should_retry is not False,
        hint=verdict.wait.until - now if verdict.wait else None,
    )
    step = next_at_target(verdict.error_class, Visit(), situation, jitter=0.5).step
    leaves = step is Step.NEXT_TARGET
    onward = goes_on(verdict.error_class, allowed=frozenset(), other_provider=True, larger_context=False)
    return Step.STOP if leaves and not onward else step


def _headers(given: Iterable[str]) -> Mapping[str, str]:
    headers = {}
    for each in given:
        cut = min((at for at in (each.find("="), each.find(":")) if at > 0), default=0)
        if not cut:
            raise UsageError(f"--header {each!r} is not of the form name=value")
        headers[each[:cut].strip().lower()] = each[cut + 1 :].strip()
    return headers


def _rules(registry: Registry) -> Rules:
    """Return the built-in rules with the users' own before them."""
    rules = Rules.load_builtin()
    for provider in registry:
        if provider.errors:
            rules = rules.with_user_rules(provider.name, provider.errors)
    return rules


def _provider(registry: Registry, spelled: str) -> Provider:
    try:
        return registry.provider(registry.canonical(spelled))
    except UnknownProvider as exc:
        raise UsageError(str(exc)) from exc


def _facts(shape: Mapping[str, Any], verdict: Verdict, now: datetime) -> list[tuple[str, object]]:
    wait = ""
    if verdict.wait:
        wait = f"{words.length(verdict.wait.until - now)}, {words.source(verdict.wait.source)}"
    return [
        ("class", shape["class"]),
        ("rule", shape["rule"]),
        ("provider", shape["provider"]),
        ("code", verdict.code),
        ("wait", wait),
        ("marks", _mark_words(shape, verdict.error_class, now)),
        ("then", shape["recovery"]),
    ]


def _mark_words(shape: Mapping[str, Any], error_class: ErrorClass | None, now: datetime) -> str:
    if error_class is None or shape["scope"] is None:
        return "nothing"
    scope = shape["scope"].value.replace("_model", " and model")
    row = RECOVERY[error_class]
    if row.marks_after > 1:
        return f"{scope}, after {row.marks_after} such failures in a row"
    if shape["mark_until"] is None:
        return f"{scope}, until a new secret, a login or a reset"
    return f"{scope}, for {words.length(datetime.fromisoformat(shape['mark_until']) - now)}"
