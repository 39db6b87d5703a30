"""A set of whole UTC seconds, and how it is asked: the next one, the newest one, how many."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from datetime import UTC, datetime, timedelta

DAY = 86_400
FIRST_SECOND = 0
LAST_SECOND = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp()) - 1  # datetime ends a year later
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
WHOLE_DAY = (1 << DAY) - 1


def second_of(moment: datetime) -> int:
    """Return the whole seconds since 1970 of an aware moment, rounded down; negative before."""
    return (moment - _EPOCH) // _SECOND


def second_from(moment: datetime) -> int:
    """Return the whole seconds since 1970 of an aware moment, rounded up."""
    return -((_EPOCH - moment) // _SECOND)


def moment_of(second: int) -> datetime:
    """Return the moment of a second that lies within the years 1970 to 9998."""
    return _EPOCH + timedelta(seconds=second)


class Instants(ABC):
    """When a job is due, as seconds since 1970. What lies before 1970 or after 9998 is never due.

    A kind of schedule says which seconds are its own; what people ask in moments is answered here.
    """

    __slots__ = ()

    def after(self, moment: datetime) -> datetime | None:
        """Return the first due instant later than `moment` (aware), or None when there is none."""
        found = self.first_from(max(second_of(moment) + 1, FIRST_SECOND))
        return None if found is None or found > LAST_SECOND else moment_of(found)

    def latest(self, moment: datetime) -> datetime | None:
        """Return the newest due instant not later than `moment` (aware), or None when there is none."""
        found = self.last_to(min(second_of(moment), LAST_SECOND))
        return None if found is None or found < FIRST_SECOND else moment_of(found)

    def count(self, after: datetime, until: datetime) -> int:
        """Return how many instants are later than `after` and not later than `until`."""
        first, last = max(second_of(after) + 1, FIRST_SECOND), min(second_of(until), LAST_SECOND)
        return self.counted(first, last) if first <= last else 0

    @abstractmethod
    def first_from(self, second: int) -> int | None:
        """Return the first due second that is not before `second`, which is 0 or more."""

    @abstractmethod
    def last_to(self, second: int) -> int | None:
        """Return the last due second that is not after `second`, which is `LAST_SECOND` or less."""

    @abstractmethod
    def bits(self, day: int) -> int:
        """Return what is due on a UTC day, numbered from 1970-01-01: bit n is second n of it."""

    @abstractmethod
    def shape(self, day: int) -> Hashable:
        """Return something that is equal for two days only if their bits are."""

    def counted(self, first: int, last: int) -> int:
        """Return how many seconds from `first` to `last` are due.

        Days of one shape are counted once, so that ten years take milliseconds.
        """
        begin, end = first // DAY, last // DAY
        known: dict[Hashable, int] = {}
        total = -(self.bits(begin) & ((1 << first % DAY) - 1)).bit_count()
        total -= (self.bits(end) >> last % DAY + 1).bit_count()
        for day in range(begin, end + 1):
            shape = self.shape(day)
            if shape not in known:
                known[shape] = self.bits(day).bit_count()
            total += known[shape]
        return total
