"""`promptd provider check`: one tiny real request per credential, and what its answer proves."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import click
from sqlalchemy import Connection

from jobs import clock
from jobs.credential import Credential, CredentialKind, Unreadable
from jobs.errors import ErrorClass, UsageError
from jobs.providers.call import Answered, Left
from jobs.providers.pool import Habits
from jobs.providers.registry import ProviderFault
from jobs.providers.resolve import PassedOver
from jobs.providers.settle import resolved
from jobs.target import Target
from scheduler.cli import words
from scheduler.cli.context import Context
from scheduler.cli.edge import ExitCode
from scheduler.cli.params import PROVIDER
from scheduler.cli.secrets import look
from scheduler.cli.tables import Table, View, shown
from scheduler.credential_checks import CHECK_TIMEOUT, Checked, check_now

_TITLES = ("PROVIDER", "CREDENTIAL", "MODEL", "RESULT", "WHAT IT PROVES")
_NO_ANSWER = (ErrorClass.CONNECTION, ErrorClass.TIMEOUT, ErrorClass.AUTH_UNAVAILABLE)
_AGAINST_THE_KEY = (ErrorClass.AUTH, ErrorClass.AUTH_DEAD)


class Proof(StrEnum):
    """What a check has shown."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    UNREADABLE = "unreadable"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Planned:
    """A credential that is to be checked with a model, or the reason why it cannot be."""

    target: Target
    credential: Credential
    obstacle: tuple[Proof, ErrorClass, str] | None = None


@click.command("check")
@click.argument("name", required=False, type=PROVIDER)
@click.option("--model", metavar="M", help="Ask this model; default: the first that the configuration uses.")
@shown
def check(context: Context, name: str | None, model: str | None) -> View:
    """Send one tiny real request per credential, and say what it proves; exit 1 when one is not answered.

    Without NAME, of every provider that the configuration uses. The answers count: a success opens what was
    closed, a refusal closes what it is about. What is closed for good is not asked.
    """
    targets = _targets(context, name, model)
    with context.reading() as connection:
        planned = [each for target in targets for each in plan(context, connection, target, clock.utcnow())]
    asked = [(each.target, each.credential.label) for each in planned if each.obstacle is None]
    checked = iter(check_now(context.settings, asked, environ=context.environ, redactor=context.redactor))
    shapes = [check_shape(each, None if each.obstacle else next(checked)) for each in planned]
    good = all(each["result"] == Proof.ANSWERED for each in shapes)
    return View(
        shapes,
        [Table(_TITLES, [_line(each) for each in shapes], none="no provider is used; name one")],
        code=ExitCode.DONE if good else ExitCode.FAILED,
    )


def _targets(context: Context, name: str | None, model: str | None) -> list[Target]:
    """Return one target per provider that is meant; raises UsageError where its model is not known."""
    used: dict[str, Target] = {}
    for target in context.settings.targets():
        used.setdefault(target.provider, target)
    if name is None:
        if model is not None:
            raise UsageError("--model needs the name of a provider")
        return [used[each] for each in sorted(used)]
    canonical = context.provider_name(name)
    if model is None:
        if canonical not in used:
            raise UsageError(f"the configuration uses no model of {canonical}; give --model")
        return [used[canonical]]
    try:
        return [context.registry.target(canonical, model)]
    except ProviderFault as exc:
        raise UsageError(f"{exc.wrong}; {exc.mend}") from exc


def plan(context: Context, connection: Connection, target: Target, now: datetime) -> Iterator[Planned]:
    """Yield the credentials of a target's provider, each with what keeps it from being asked, if anything."""
    provider = context.registry.provider(target.provider)
    opened = look(context).vault.look(connection, provider, now=now)
    for each in opened:
        if isinstance(each, Unreadable):
            obstacle = (Proof.UNREADABLE, ErrorClass.CONFIG_ERROR, each.why)
            yield Planned(target, each.credential, obstacle)
            continue
        habits = Habits(only=each.credential.label, through_closed=True)
        found = resolved(connection, opened, provider, target, habits, now)
        if isinstance(found, PassedOver):
            yield Planned(target, each.credential, (Proof.CLOSED, found.error_class, found.message))
        else:
            yield Planned(target, each.credential)


def check_shape(planned: Planned, checked: Checked | None) -> dict[str, Any]:
    """Return a check as `provider check --json` prints it; `seconds` is None where nothing was sent."""
    proof, error_class, message = planned.obstacle or _proved(planned, checked)
    return {
        "provider": planned.target.provider,
        "credential": planned.credential.label,
        "kind": planned.credential.kind,
        "model": planned.target.model,
        "base_url": planned.target.base_url,
        "result": proof,
        "class": error_class,
        "proves": message,
        "seconds": round(checked.seconds, 3) if checked else None,
    }


def _proved(planned: Planned, checked: Checked | None) -> tuple[Proof, ErrorClass | None, str]:
    assert checked is not None
    match checked.ended:
        case Answered():
            accepted = {
                CredentialKind.KEY: "the key is accepted, and ",
                CredentialKind.OAUTH: "the login is accepted, and ",
                CredentialKind.NONE: "",
            }[planned.credential.kind]
            took = words.length(checked.seconds)
            return Proof.ANSWERED, None, f"{accepted}{planned.target.model} answered in {took}"
        case Left(_, error_class, message):
            return _refused(error_class, message)
        case None:
            limit = words.length(CHECK_TIMEOUT)
            return Proof.UNREACHABLE, ErrorClass.TIMEOUT, f"no answer within {limit}"


def _refused(error_class: ErrorClass, message: str) -> tuple[Proof, ErrorClass, str]:
    """Say what a failure shows: nobody was there, the credential will not do, or something else is wrong."""
    if error_class in _NO_ANSWER:
        return Proof.UNREACHABLE, error_class, f"not reachable: {message}"
    if error_class in _AGAINST_THE_KEY:
        return Proof.REFUSED, error_class, f"the credential is refused: {message}"
    return Proof.FAILED, error_class, f"reached, but not answered: {message}"


def _line(shape: dict[str, Any]) -> tuple[object, ...]:
    result = words.cause(shape["result"], shape["class"])
    return shape["provider"], shape["credential"], shape["model"], result, shape["proves"]
