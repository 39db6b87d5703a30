"""What the chain is asked and what it answers: values, and the budget that one call of it has."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from jobs import clock
from jobs.attempt import Attempt, Purpose, Step, Wait
from jobs.errors import ErrorClass, PromptdError
from jobs.providers.recovery import MOST_REQUESTS, MOST_TARGETS, goes_on
from jobs.request import Completion
from jobs.target import Target


@dataclass(frozen=True, slots=True)
class Call:
    """For whom the chain works, and what it may do. `deadline` is a moment of `clock.monotonic`."""

    targets: tuple[Target, ...]
    deadline: float
    run_id: int | None = None
    tries: int = 1
    purpose: Purpose = Purpose.MAIN
    fallback_on: frozenset[ErrorClass] = frozenset()
    repeat_safe: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A proved answer, who gave it, and for what class the first target was left (None: it answered)."""

    completion: Completion
    attempt: Attempt
    fallback_reason: ErrorClass | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """A target that was left without an answer, and why."""

    target: Target
    error_class: ErrorClass
    message: str


class ChainExhausted(PromptdError):
    """No target gave an answer; `left` tells of each, in order. The first one's class is the run's."""

    def __init__(self, left: Sequence[Left]) -> None:
        self.left = tuple(left)
        super().__init__("; ".join(f"{each.target}: {each.error_class}: {each.message}" for each in left))

    @property
    def error_class(self) -> ErrorClass:
        """The class for which the first target was left."""
        return self.left[0].error_class


@dataclass(slots=True)
class Progress:
    """Where one call of the chain stands, and what it has spent over all of its targets."""

    call: Call
    index: int = 0
    requests: int = 0
    wait: Wait = field(default_factory=Wait)

    @property
    def target(self) -> Target:
        """The target that is asked now."""
        return self.call.targets[self.index]

    @property
    def following(self) -> Target | None:
        """The target after it, None at the end of the chain or of what a call may ask."""
        after = self.index + 1
        return self.call.targets[after] if after < min(len(self.call.targets), MOST_TARGETS) else None

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
        if self.following is None or self.spent:
            return Step.STOP
        if error_class is ErrorClass.CONFIG_ERROR and self.index > 0:
            return Step.NEXT_TARGET
        allowed = goes_on(
            error_class,
            allowed=self.call.fallback_on,
            other_provider=self.following.provider != self.target.provider,
        )
        return Step.NEXT_TARGET if allowed else Step.STOP
