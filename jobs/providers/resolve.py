"""Resolving a target: from its provider's credentials and marks to one credential, or why none."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobs.credential import Readable, Unreadable
from jobs.errors import ErrorClass
from jobs.mark import Mark
from jobs.names import ProviderName
from jobs.providers.pool import Closed, Habits, class_of, first_open, words
from jobs.target import Target


@dataclass(frozen=True, slots=True)
class Resolved:
    """The credential that a request may go with."""

    readable: Readable


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A target that cannot be asked now, and why."""

    error_class: ErrorClass
    message: str
    code: str | None = None
    closed: tuple[Closed, ...] = ()


def no_key(provider: ProviderName, credentials: Sequence[Readable | Unreadable]) -> str | None:
    """Say why not one of a provider's secrets can be read; None when one can."""
    if any(isinstance(each, Readable) for each in credentials):
        return None
    whys = "; ".join(f"{u.credential.label}: {u.why}" for u in credentials if isinstance(u, Unreadable))
    return f"no key for {provider} can be read: {whys}"


def resolve_runtime_provider(
    target: Target,
    *,
    credentials: Sequence[Readable | Unreadable],
    marks: Sequence[Mark],
    habits: Habits = Habits(),
    now: datetime,
) -> Resolved | PassedOver:
    """Choose the credential for a target. Pure: a failure to resolve is a value like any other.

    `credentials` stand in the order in which they are to be tried. `config_error` means that not one secret
    of the provider can be read.
    """
    meant = [each for each in credentials if habits.only in (None, each.credential.label)]
    keyless = no_key(target.provider, meant)
    if keyless is not None:
        return PassedOver(ErrorClass.CONFIG_ERROR, keyless)
    readable = [each for each in meant if isinstance(each, Readable)]
    chosen = first_open(
        readable, marks, target, habits=habits, only_credential=len(credentials) == 1, now=now
    )
    if isinstance(chosen, Readable):
        return Resolved(chosen)
    leading = next((why for why in chosen if why.mark), chosen[0])
    return PassedOver(
        class_of(chosen),
        "; ".join(words(why) for why in chosen),
        code=leading.mark.code if leading.mark else None,
        closed=tuple(chosen),
    )
