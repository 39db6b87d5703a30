"""What the chain is asked and what it answers: values, and the budget that one call of it has."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from jobs import clock
from jobs.attempt import Attempt, Purpose, Step, Wait
from jobs.errors import ErrorClass, PromptdError
from jobs.names import ProviderName
from jobs.providers.openings import Opening
from jobs.providers.recovery import MOST_REQUESTS, MOST_TARGETS, RECOVERY, TOO_LONG, Onward, goes_on
from jobs.request import Completion, Request
from jobs.target import Target

Rest = Callable[[], AbstractAsyncContextManager[None]]
Shrink = Callable[[Request, ErrorClass], Awaitable[Request]]
"""Makes a request that was too long smaller, once; raises what ends the run when it cannot."""


@dataclass(frozen=True, slots=True)
class Drill:
    """A rehearsal: the named providers fail before a request leaves, and nobody is marked."""

    failures: Mapping[ProviderName, ErrorClass]


@dataclass(frozen=True, slots=True)
class Call:
    """For whom the chain works, and what it may do. `deadline` is a moment of `clock.monotonic`.

    `first` is the index of the target to begin with: a call that belongs to an earlier answer never goes
    back behind it. `through_closed` asks also what is closed for a time: the run is a probe. `waits` lets
    it wait for the earliest opening when every target is closed. `only` is the label of the one credential
    that may be used, and is asked once: the call is a check of it. `timeout` bounds each of its requests
    where it is shorter than the provider's. `rest` is entered while the call waits for an opening: whoever
    gave it a worker may use it meanwhile.
    """

    targets: tuple[Target, ...]
    deadline: float
    run_id: int | None = None
    tries: int = 1
    purpose: Purpose = Purpose.MAIN
    fallback_on: frozenset[ErrorClass] = frozenset()
    repeat_safe: bool = False
    first: int = 0
    shrink: Shrink | None = None
    drill: Drill | None = None
    through_closed: bool = False
    waits: bool = True
    only: str | None = None
    timeout: timedelta | None = None
    rest: Rest = nullcontext


@dataclass(frozen=True, slots=True)
class Answered:
    """A proved answer, what was asked, who gave it, and for what class the first target was left, if any."""

    completion: Completion
    attempt: Attempt
    request: Request
    fallback_reason: ErrorClass | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """A target that was left without an answer, and why; `at` is the moment by which that was judged."""

    target: Target
    error_class: ErrorClass
    message: str
    at: datetime = field(default_factory=clock.utcnow)


class ChainExhausted(PromptdError):
    """No target gave an answer; `left` tells of each, in order. The first one's class is the run's.

    `opening` says when the earliest target opens again, where every one is closed for a known time.
    """

    def __init__(self, left: Sequence[Left], opening: Opening | None = None) -> None:
        self.left = tuple(left)
        self.opening = opening
        super().__init__("; ".join(f"{each.target}: {each.error_class}: {each.message}" for each in left))

    @property
    def error_class(self) -> ErrorClass:
        """The class for which the first target was left."""
        return self.left[0].error_class


@dataclass(slots=True)
class Progress:
    """Where one call of the chain stands, and what it has spent over all of its targets.

    `request` is what is asked now: a smaller one once it was too long. `reached` is the furthest target
    that a request was sent to, None before the first; `asked` are those that cost one, refreshes counted:
    five at most, however many are passed over. `too_long`: what is asked did not fit a target, so only one
    with a larger context may follow.
    """

    call: Call
    request: Request
    index: int = 0
    requests: int = 0
    reached: int | None = None
    asked: set[int] = field(default_factory=set)
    shrunk: bool = False
    too_long: ErrorClass | None = None
    wait: Wait = field(default_factory=Wait)

    def spend(self) -> None:
        """Count a request at the target that is asked now."""
        self.requests += 1
        self.reached = self.index
        self.asked.add(self.index)

    @property
    def target(self) -> Target:
        """The target that is asked now."""
        return self.call.targets[self.index]

    def following(self, error_class: ErrorClass) -> int | None:
        """Return the index of the target that comes next for this class; None when there is none.

        What is too long for one target goes only to one that says `larger_context`, unless the job has it
        otherwise.
        """
        if len(self.asked) >= MOST_TARGETS:
            return None
        too_long = self.was_too_long(error_class)
        later = range(self.index + 1, len(self.call.targets))
        return next((at for at in later if not too_long or self.call.targets[at].larger_context), None)

    def was_too_long(self, error_class: ErrorClass) -> ErrorClass | None:
        """Return why only targets with a larger context may follow one left for this; None where all may."""
        if self.too_long is not None or error_class in self.call.fallback_on:
            return self.too_long
        return error_class if error_class in TOO_LONG else None

    def move_to(self, index: int, error_class: ErrorClass) -> None:
        """Go on to a later target."""
        self.too_long = self.was_too_long(error_class)
        self.index = index

    def awaited(self) -> list[int]:
        """Return the indexes of the targets that it helps to wait for.

        A try that has asked a target does not go back behind it.
        """
        first = self.call.first if self.reached is None else self.reached
        later = range(first, len(self.call.targets))
        return [at for at in later if not self.too_long or self.call.targets[at].larger_context]

    @property
    def time_left(self) -> timedelta:
        """How long the deadline still allows."""
        return timedelta(seconds=max(0.0, self.call.deadline - clock.monotonic()))

    @property
    def requests_left(self) -> int:
        """How many requests the budget still allows."""
        return MOST_REQUESTS - self.requests

    @property
    def spent(self) -> bool:
        """Whether no request, or no time, is left."""
        return self.requests_left <= 0 or self.time_left <= timedelta(0)

    def step_out(self, error_class: ErrorClass) -> Step:
        """Return `next_target` where the chain may and can go on from here for this class, else `stop`.

        Only the primary's missing key stops a chain: a fallback without one is passed over.
        """
        following = self.following(error_class)
        if following is None or self.spent:
            return Step.STOP
        if error_class is ErrorClass.CONFIG_ERROR and self.index > 0:
            return Step.NEXT_TARGET
        allowed = goes_on(
            error_class,
            allowed=self.call.fallback_on,
            other_provider=self.call.targets[following].provider != self.target.provider,
            larger_context=self.call.targets[following].larger_context,
        )
        return Step.NEXT_TARGET if allowed else Step.STOP

    def may_wait(self, error_class: ErrorClass) -> bool:
        """Say whether it helps to wait: not where the request itself, or a missing key, is to blame."""
        passed_over = error_class is ErrorClass.CONFIG_ERROR and self.index > 0
        return passed_over or RECOVERY[error_class].onward is Onward.ALWAYS

    def may_shrink(self, error_class: ErrorClass) -> bool:
        """Say whether the request may be made smaller for this class: once in a call, if at all."""
        return error_class in TOO_LONG and self.call.shrink is not None and not self.shrunk and not self.spent
