"""The named points at which a daemon is killed: which verbs of the store, and which moment of theirs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from jobs.alert import Notice
from jobs.store import alerts, deliveries


class Moment(StrEnum):
    """When: before the writer has the verb, in its transaction before the commit, or after the commit."""

    BEFORE = "before"
    INSIDE = "inside"
    AFTER = "after"


def _anything(_told: object) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of the verbs with these names; at which of their calls somebody dies lies in these bounds.

    Only calls count of which something that they are told is `about` it.
    """

    verbs: frozenset[str]
    moment: Moment
    most: int = 3
    least: int = 1
    about: Callable[[object], bool] = _anything


@dataclass(frozen=True, slots=True)
class Death:
    """A point, and at which call of its verbs the process dies there."""

    point: Point
    nth: int


_ANSWER = frozenset({"settle_success", "settle_failure"})
_GOOD_ANSWER = frozenset({"settle_success"})


def _at(verb: str, moment: Moment, most: int = 3, least: int = 1) -> Point:
    return Point(frozenset({verb}), moment, most, least)


def _opens(told: object) -> bool:
    return isinstance(told, alerts.Verdict) and any(each.notice is Notice.OPENED for each in told.tell)


def _closes(told: object) -> bool:
    return isinstance(told, alerts.Verdict) and any(each.notice is Notice.RESOLVED for each in told.tell)


def _is_refused(told: object) -> bool:
    return isinstance(told, deliveries.Verdict) and told.again_at is not None


def _at_an_alert(moment: Moment, about: Callable[[object], bool]) -> Point:
    return Point(frozenset({"tell"}), moment, 1, about=about)


IN_THE_STORE: Mapping[str, Point] = MappingProxyType(
    {
        "before a claim": _at("claim", Moment.BEFORE),
        "in a claim": _at("claim", Moment.INSIDE),
        "after a claim": _at("claim", Moment.AFTER),
        "before a try": _at("_begin", Moment.INSIDE, 6),
        "before a request": _at("open_attempt", Moment.AFTER, 8),
        "after a response": Point(_ANSWER, Moment.BEFORE, 8),
        "before an answer's commit": Point(_ANSWER, Moment.INSIDE, 8),
        "between an answer and its run's end": Point(_GOOD_ANSWER, Moment.AFTER, 8),
        "before an end's commit": _at("finish", Moment.INSIDE, 8),
        "after an end": _at("finish", Moment.AFTER, 8),
        "before a retry's commit": _at("requeue", Moment.INSIDE, 1),
        "after a retry's commit": _at("requeue", Moment.AFTER, 1),
        "in a recovery": _at("recover", Moment.INSIDE, 1),
        "after a recovery": _at("recover", Moment.AFTER, 1),
        "before a delivery's claim": _at("_claim", Moment.BEFORE, 6),
        "in a delivery's claim": _at("_claim", Moment.INSIDE, 6),
        "after a delivery's claim": _at("_claim", Moment.AFTER, 6),
        "between a delivery and its settling": _at("settle", Moment.BEFORE, 6),
        "in a delivery's settling": _at("settle", Moment.INSIDE, 6),
        "after a delivery's settling": _at("settle", Moment.AFTER, 6),
        "in an alert's opening": _at_an_alert(Moment.INSIDE, _opens),
        "after an alert's opening": _at_an_alert(Moment.AFTER, _opens),
        "in an alert's closing": _at_an_alert(Moment.INSIDE, _closes),
        "after an alert's closing": _at_an_alert(Moment.AFTER, _closes),
    }
)

IN_A_RELOAD: Mapping[str, Point] = MappingProxyType(
    {
        "before a reload": _at("see", Moment.BEFORE, 2, 2),
        "in a reload": _at("see", Moment.INSIDE, 2, 2),
        "after a reload": _at("see", Moment.AFTER, 2, 2),
    }
)
"""A daemon sees its jobs as it starts, and the second time when it reloads."""

A_LATE_REFUSAL = Point(frozenset({"settle"}), Moment.AFTER, 1, about=_is_refused)
"""As a daemon has written, or has not been let, that a receiver wanted nothing of a delivery."""
