"""What the chain would do now: its own choices, made by its own functions, with no request and no write."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection

from jobs.attempt import Step
from jobs.credential import Credential, Readable, Strategy, Unreadable
from jobs.errors import ErrorClass
from jobs.mark import FOR_EVER
from jobs.providers.call import Call, Progress
from jobs.providers.oauth import Unanswerable, refresh_request
from jobs.providers.openings import Opening, earliest
from jobs.providers.pool import Closed, Habits, closure
from jobs.providers.registry import Provider, Registry
from jobs.providers.resolve import PassedOver, Resolved
from jobs.providers.settle import resolved
from jobs.providers.vault import Vault
from jobs.request import Request
from jobs.store import credentials, tokens
from jobs.target import Target


class Part(StrEnum):
    """What becomes of a target, or of one of its credentials, when a run comes to it."""

    USED = "used"
    OPEN = "open"
    CLOSED = "closed"
    UNREADABLE = "unreadable"
    LOST = "lost"
    PASSED_OVER = "passed_over"
    NOT_REACHED = "not_reached"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A credential as a run finds it.

    `closed` stands with the part `closed`; `why` with `unreadable`, and with `lost`: a login that has ended
    and cannot be refreshed. `refreshes` says that a request for new tokens goes first.
    """

    credential: Credential
    part: Part
    closed: Closed | None = None
    why: str | None = None
    refreshes: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One target as a run finds it: `used`, `passed_over` for a class and in words, or `not_reached`.

    More than one candidate is `used` where chance takes one of them.
    """

    index: int
    target: Target
    part: Part
    candidates: tuple[Candidate, ...] = ()
    error_class: ErrorClass | None = None
    message: str | None = None

    @property
    def used(self) -> tuple[Candidate, ...]:
        """The credentials of which the run takes one."""
        return tuple(each for each in self.candidates if each.part is Part.USED)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The targets of a chain, in order, as a run that begins now finds them.

    `opening` says when the first of them opens where all are closed. With `waits` it lies within the run's
    deadline, and `then` says how the run finds them at that moment.
    """

    targets: tuple[Seen, ...]
    opening: Opening | None = None
    waits: bool = False
    then: tuple[Seen, ...] = ()

    @property
    def used(self) -> Seen | None:
        """The target that a run would ask: now, or after its wait; None where it would fail."""
        found = self.then if self.waits else self.targets
        return next((each for each in found if each.part is Part.USED), None)

    @property
    def fails(self) -> ErrorClass | None:
        """The class with which a run would fail without asking anybody."""
        return None if self.used is not None else self.targets[0].error_class


def explain(
    connection: Connection, registry: Registry, vault: Vault, call: Call, *, now: datetime
) -> Explanation:
    """Say what a call that begins now would find, and whom it would ask first."""
    walk = _Walk(connection, registry, vault, call)
    targets = walk.along(now)
    *_, last = (each for each in targets if each.part is not Part.NOT_REACHED)
    if last.error_class is None:
        return Explanation(targets)
    progress = Progress(call, Request(""), index=last.index)
    opening = walk.opening(now) if progress.may_wait(last.error_class) else None
    if opening is None or not call.waits or opening.at - now >= progress.time_left:
        return Explanation(targets, opening)
    return Explanation(targets, opening, waits=True, then=walk.along(opening.at))


@dataclass(slots=True)
class _Walk:
    """A way along the chain. `lost` holds the logins that it has found dead, by (provider, label)."""

    connection: Connection
    registry: Registry
    vault: Vault
    call: Call
    lost: dict[tuple[str, str], str] = field(default_factory=dict)

    def along(self, now: datetime) -> tuple[Seen, ...]:
        """Go from target to target as the chain does, until one is used or none may follow."""
        progress = Progress(self.call, Request(""), index=self.call.first)
        seen: dict[int, Seen] = {}
        while True:
            found = seen[progress.index] = self._at(progress.index, now)
            if (error_class := found.error_class) is None:
                break
            following = progress.following(error_class)
            if following is None or progress.step_out(error_class) is Step.STOP:
                break
            progress.move_to(following, error_class)
        return tuple(
            seen.get(index) or Seen(index, target, Part.NOT_REACHED)
            for index, target in enumerate(self.call.targets)
        )

    def opening(self, now: datetime) -> Opening | None:
        """Return when the first target opens by itself, if every one is closed."""
        asked = self.call.targets[self.call.first :]
        return earliest([(target, self._resolved(target, *self._look(target, now), now)) for target in asked])

    def _at(self, index: int, now: datetime) -> Seen:
        """Look at one target: who would be used, or for which class it is left."""
        target = self.call.targets[index]
        provider, opened = self._look(target, now)
        usable: dict[str, bool] = {}
        died: str | None = None
        while isinstance(found := self._resolved(target, provider, opened, now, *usable), Resolved):
            refreshes = self._refreshes(found.readable)
            if isinstance(refreshes, str):
                died = self.lost[target.provider, found.readable.credential.label] = refreshes
                continue
            usable[found.readable.credential.label] = refreshes
            if provider.strategy is not Strategy.RANDOM:
                break
        candidates = self._candidates(target, opened, usable, now)
        if usable:
            return Seen(index, target, Part.USED, candidates)
        assert isinstance(found, PassedOver)
        error_class = ErrorClass.AUTH_DEAD if died else _class_of(found)
        return Seen(index, target, Part.PASSED_OVER, candidates, error_class, died or found.message)

    def _look(self, target: Target, now: datetime) -> tuple[Provider, Sequence[Readable | Unreadable]]:
        provider = self.registry.provider(target.provider)
        return provider, self.vault.look(self.connection, provider, now=now)

    def _resolved(
        self,
        target: Target,
        provider: Provider,
        opened: Sequence[Readable | Unreadable],
        now: datetime,
        *besides: str,
    ) -> Resolved | PassedOver:
        """Resolve a target without the logins that were lost, for ever, and without `besides`."""
        lost = {label for owner, label in self.lost if owner == target.provider}
        habits = Habits(refused=frozenset(lost.union(besides)))
        found = resolved(self.connection, opened, provider, target, habits, now)
        if isinstance(found, Resolved):
            return found
        closed = (
            Closed(why.credential, FOR_EVER, None) if why.credential.credential.label in lost else why
            for why in found.closed
        )
        return replace(found, closed=tuple(closed))

    def _refreshes(self, readable: Readable) -> bool | str:
        """Say whether new tokens are asked for first; in words, where they are needed and cannot be."""
        if not readable.stale:
            return False
        credential = readable.credential
        sealed = tokens.load(self.connection, credential.provider, credential.label)
        asked = refresh_request(readable, sealed) if sealed else None
        if not isinstance(asked, Unanswerable):
            return True
        return False if readable.valid else asked.message

    def _candidates(
        self,
        target: Target,
        opened: Sequence[Readable | Unreadable],
        usable: dict[str, bool],
        now: datetime,
    ) -> tuple[Candidate, ...]:
        marks = credentials.marks_of(self.connection, target.provider)
        found = []
        for each in opened:
            label = each.credential.label
            if isinstance(each, Unreadable):
                found.append(Candidate(each.credential, Part.UNREADABLE, why=each.why))
            elif label in usable:
                found.append(Candidate(each.credential, Part.USED, refreshes=usable[label]))
            elif lost := self.lost.get((target.provider, label)):
                found.append(Candidate(each.credential, Part.LOST, why=lost))
            elif why := closure(each, marks, target, only_credential=len(opened) == 1, now=now):
                found.append(Candidate(each.credential, Part.CLOSED, why))
            else:
                found.append(Candidate(each.credential, Part.OPEN))
        return tuple(found)


def _class_of(passed: PassedOver) -> ErrorClass:
    """Return the class of a target that is passed over; what is closed without a mark is a lost login."""
    if not passed.closed:
        return passed.error_class
    first = passed.closed[0].mark
    return first.error_class if first else ErrorClass.AUTH_DEAD
