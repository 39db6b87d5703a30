"""Targets that this process does not know: left to others, until it is plain that nobody sends to them."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection

from jobs.store import deliveries, instances

LEFT_TO_OTHERS = timedelta(minutes=15)
"""How long what goes to an unknown target is left to the other processes, where none of them sends to it."""


class LeftAlone:
    """Remembers since when nobody was seen to send to a target.

    A `tick` is in seconds, of a clock that nobody sets: a suspend, or a step, is no time in which others
    could have sent.
    """

    def __init__(self, *, instance_id: int, given_up_after: timedelta = LEFT_TO_OTHERS) -> None:
        self._instance_id, self._after = instance_id, given_up_after.total_seconds()
        self._since: dict[str, float] = {}

    def see(self, names: Collection[str], *, tick: float) -> None:
        """Take note of which are left alone now; whoever is not among them begins anew another time."""
        self._since = {name: self._since.get(name, tick) for name in names}

    def given_up(self, *, tick: float) -> frozenset[str]:
        """Return those to which nobody has sent for long enough."""
        return frozenset(name for name, since in self._since.items() if tick - since >= self._after)

    def may_fail(self, connection: Connection, name: str, *, now: datetime, tick: float) -> bool:
        """Say whether what goes to an unknown target fails: no other process is there, or it is given up."""
        if instances.is_alone(connection, self._instance_id, now=now):
            return True
        left = deliveries.left_alone(connection, (), instance_id=self._instance_id, now=now)
        return name in left and name in self.given_up(tick=tick)
