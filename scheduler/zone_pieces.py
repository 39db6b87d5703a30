"""A zone's time axis in pieces of even local time, with missing and repeated hours settled.

All times are whole seconds since 1970-01-01T00:00Z.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

DAY = 86_400
CHUNK = 32 * DAY
MARGIN = 2 * DAY
_SAMPLE = DAY  # no zone changes its clock twice within six days since 1970 (tzdata 2026.6)


class Gap(StrEnum):
    """What becomes of a local time that does not exist."""

    RUN_AFTER = "run_after"
    SKIP = "skip"


class Fold(StrEnum):
    """Which of two equal local times counts."""

    FIRST = "first"
    LAST = "last"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Piece:
    """Seconds from `begin` up to, not including, `end`, in which local time is UTC plus `offset`.

    `made_up`: so many local seconds before `begin` do not exist, and what they name is due at `begin`.
    """

    begin: int
    end: int
    offset: int
    made_up: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """At second `at` the offset changes."""

    at: int
    before: int
    after: int


@lru_cache(maxsize=8192)
def pieces(zone: ZoneInfo, chunk: int, gap: Gap, fold: Fold) -> tuple[Piece, ...]:
    """Return the pieces of the seconds from `chunk * CHUNK` on, in order.

    Local times that exist twice are in the piece of the one that counts only; with `Fold.BOTH` in both.
    """
    begin, end = chunk * CHUNK, (chunk + 1) * CHUNK
    near = [change for each in (chunk - 1, chunk, chunk + 1) for change in changes(zone, each)]
    inside = [change for change in near if begin <= change.at < end]
    cuts = [begin, *(change.at for change in inside if change.at > begin), end]
    made_up = {change.at: change.after - change.before for change in inside if gap is Gap.RUN_AFTER}
    found = [
        Piece(since, until, offset_at(zone, since), max(0, made_up.get(since, 0)))
        for since, until in pairwise(cuts)
    ]
    for since, until in _left_out(near, fold):
        found = [part for piece in found for part in _without(piece, since, until)]
    return tuple(found)


@lru_cache(maxsize=8192)
def changes(zone: ZoneInfo, chunk: int) -> tuple[Change, ...]:
    """Return the changes of a zone's offset within a chunk, in order."""
    return tuple(_changes(zone, chunk * CHUNK, (chunk + 1) * CHUNK))


def offset_at(zone: ZoneInfo, second: int) -> int:
    """Return a zone's offset from UTC in seconds."""
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)


def _changes(zone: ZoneInfo, begin: int, end: int) -> Iterator[Change]:
    before = offset_at(zone, begin - 1)
    for since in range(begin - 1, end - 1, _SAMPLE):
        until = min(since + _SAMPLE, end - 1)
        after = offset_at(zone, until)
        if after != before:
            yield Change(_switch(zone, since, until), before, after)
        before = after


def _switch(zone: ZoneInfo, since: int, until: int) -> int:
    """Return the first second with another offset than that of `since`."""
    before = offset_at(zone, since)
    while until - since > 1:
        middle = (since + until) // 2
        since, until = (middle, until) if offset_at(zone, middle) == before else (since, middle)
    return until


def _left_out(changed: list[Change], fold: Fold) -> Iterator[tuple[int, int]]:
    """Yield the stretches whose local times exist twice, and do not count."""
    for change in changed:
        repeated = change.before - change.after
        if repeated <= 0:
            continue
        match fold:
            case Fold.FIRST:
                yield change.at, change.at + repeated
            case Fold.LAST:
                yield change.at - repeated, change.at
            case Fold.BOTH:
                pass


def _without(piece: Piece, since: int, until: int) -> Iterator[Piece]:
    """Yield what is left of a piece."""
    if until <= piece.begin or piece.end <= since:
        yield piece
        return
    if piece.begin < since:
        yield Piece(piece.begin, since, piece.offset, piece.made_up)
    if until < piece.end:
        yield Piece(until, piece.end, piece.offset)
