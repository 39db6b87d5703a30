"""When a chain opens again whose every target is closed: pure, from what resolving each of them says."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobs.mark import FOR_EVER
from jobs.providers.pool import Closed
from jobs.providers.recovery import RECOVERY
from jobs.providers.resolve import PassedOver, Resolved
from jobs.target import Target

Resolution = tuple[Target, Resolved | PassedOver]


@dataclass(frozen=True, slots=True)
class Opening:
    """The earliest moment at which a target of a closed chain opens by itself.

    `index` is the target's place among those that were looked at; `closed` names all that is closed: the
    same for every chain that the same marks close.
    """

    at: datetime
    index: int
    target: Target
    closed: str

    def __str__(self) -> str:
        return f"every target is closed; {self.target} opens first, at {self.at:%Y-%m-%d %H:%M:%S} UTC"


def earliest(resolutions: Sequence[Resolution]) -> Opening | None:
    """Return the first opening of a chain; None when a target is open, or when time opens none of them.

    What needs somebody to mend it has no opening, even where its mark has a time: a second request would
    be refused like the first.
    """
    if any(isinstance(each, Resolved) for _, each in resolutions):
        return None
    closed = _named(resolutions)
    timed = [
        Opening(at, index, target, closed)
        for index, (target, each) in enumerate(resolutions)
        if isinstance(each, PassedOver) and (at := _opens(each.closed)) is not None
    ]
    return min(timed, key=lambda opening: opening.at, default=None)


def _opens(closed: Sequence[Closed]) -> datetime | None:
    times = [
        why.until
        for why in closed
        if why.mark is not None and why.until != FOR_EVER and RECOVERY[why.mark.error_class].heals
    ]
    return min(times, default=None)


def _named(resolutions: Sequence[Resolution]) -> str:
    names = {
        _name(target, why)
        for target, each in resolutions
        if isinstance(each, PassedOver)
        for why in each.closed
    }
    return ", ".join(sorted(names))


def _name(target: Target, why: Closed) -> str:
    """Name what is closed: a credential, and its model where only that is."""
    credential = f"{target.provider}/{why.credential.credential.label}"
    return f"{credential} ({target.model})" if why.mark and why.mark.scope.on_model else credential
