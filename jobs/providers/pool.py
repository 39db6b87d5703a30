"""Which credential of a provider may be used now: pure, from marks, order and what was refused already."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from jobs.credential import Readable, Strategy, Use
from jobs.errors import ErrorClass
from jobs.mark import FOR_EVER, Mark
from jobs.target import Target


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a credential cannot be used, until when (FOR_EVER: no time is known), and the mark behind it.

    `mark` is None for a credential that this run was refused with, although nothing stands against it.
    """

    credential: Readable
    until: datetime
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class Habits:
    """What the choice of a credential depends on, besides marks.

    `refused` labels and `refused_groups` are not taken again; `same` is taken before all others.
    `through_closed` takes also what is closed for a time, after everything that is open. `only` is the label
    of the one credential that is meant, where not all are.
    """

    refused: frozenset[str] = frozenset()
    refused_groups: frozenset[str] = frozenset()
    same: str | None = None
    through_closed: bool = False
    only: str | None = None


def ordered(
    candidates: Sequence[Readable], strategy: Strategy, used: Mapping[str, Use]
) -> Sequence[Readable]:
    """Return credentials in the order in which they are to be tried; `used` is by label.

    `round_robin` begins with the one whose last request is the longest ago, `least_used` with the one that
    was asked least; whoever shares a place keeps the order of the configuration.
    """

    def use(candidate: Readable) -> Use:
        return used.get(candidate.credential.label, Use())

    match strategy:
        case Strategy.FILL_FIRST:
            return candidates
        case Strategy.ROUND_ROBIN:
            return sorted(candidates, key=lambda each: use(each).newest)
        case Strategy.LEAST_USED:
            return sorted(candidates, key=lambda each: use(each).requests)
        case Strategy.RANDOM:
            return random.sample(candidates, len(candidates))
        case _:
            assert_never(strategy)


def first_open(
    candidates: Sequence[Readable],
    marks: Sequence[Mark],
    target: Target,
    *,
    habits: Habits,
    only_credential: bool,
    now: datetime,
) -> Readable | list[Closed]:
    """Return the first candidate that nothing closes, else why each one is closed."""
    closed = []
    for candidate in sorted(candidates, key=lambda each: each.credential.label != habits.same):
        why = closure(candidate, marks, target, only_credential=only_credential, now=now)
        if why is None and _is_refused(candidate, habits):
            why = Closed(candidate, FOR_EVER, None)
        if why is None:
            return candidate
        closed.append(why)
    through = (why for why in closed if why.until != FOR_EVER and not _is_refused(why.credential, habits))
    if habits.through_closed and (opened := next(through, None)):
        return opened.credential
    return closed


def _is_refused(candidate: Readable, habits: Habits) -> bool:
    credential = candidate.credential
    return credential.label in habits.refused or credential.quota_group in habits.refused_groups


def closure(
    candidate: Readable, marks: Sequence[Mark], target: Target, *, only_credential: bool, now: datetime
) -> Closed | None:
    """Return the mark that keeps this credential closed the longest for this target, or None."""
    credential = candidate.credential
    live = [
        Closed(candidate, until, mark)
        for mark in marks
        if mark.hits(
            label=credential.label,
            quota_group=credential.quota_group,
            base_url=target.base_url,
            model=target.model,
        )
        and (
            until := mark.closed_until(
                now, fingerprints=candidate.fingerprints, only_credential=only_credential
            )
        )
    ]
    return max(live, key=lambda why: why.until, default=None)


def words(why: Closed) -> str:
    """Say in one sentence why a credential is closed."""
    label = why.credential.credential.label
    if why.mark is None:
        return f"{label} was refused in this run already"
    cause = f"{why.mark.error_class} {why.mark.code}" if why.mark.code else str(why.mark.error_class)
    until = (
        f"until {why.until:%Y-%m-%d %H:%M:%S} UTC"
        if why.until != FOR_EVER
        else "until a new secret, a login or a reset"
    )
    return f"{label} is {why.mark.status}: {cause}, attempt {why.mark.attempt_id}, closed {until}"


def class_of(closed: Sequence[Closed]) -> ErrorClass:
    """Return the class for which a target with only closed credentials is passed over: its first one's."""
    return next((why.mark.error_class for why in closed if why.mark), ErrorClass.UNKNOWN)
