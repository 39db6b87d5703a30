"""The named points at which a daemon is killed: which verbs of the store, and which moment of theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Moment(StrEnum):
    """When: before the writer has the verb, in its transaction before the commit, or after the commit."""

    BEFORE = "before"
    INSIDE = "inside"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of the verbs with these names; at which of their calls somebody dies lies in these bounds."""

    verbs: frozenset[str]
    moment: Moment
    most: int = 3
    least: int = 1


@dataclass(frozen=True, slots=True)
class Death:
    """A point, and at which call of its verbs the process dies there."""

    point: Point
    nth: int


_ANSWER = frozenset({"settle_success", "settle_failure"})
_GOOD_ANSWER = frozenset({"settle_success"})


def _at(verb: str, moment: Moment, most: int = 3, least: int = 1) -> Point:
    return Point(frozenset({verb}), moment, most, least)


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
