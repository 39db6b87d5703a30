"""Which credential of a provider may be used now: pure, from marks, order and what was refused already."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobs.credential import Readable
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


def first_open(
    candidates: Sequence[Readable],
    marks: Sequence[Mark],
    target: Target,
    *,
    refused: Collection[str] = (),
    only_credential: bool,
    now: datetime,
) -> Readable | list[Closed]:
    """Return the first candidate that nothing closes (`fill_first`), else why each one is closed."""
    closed = []
    for candidate in candidates:
        why = closure(candidate, marks, target, only_credential=only_credential, now=now)
        if why is None and candidate.credential.label in refused:
            why = Closed(candidate, FOR_EVER, None)
        if why is None:
            return candidate
        closed.append(why)
    return closed


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
