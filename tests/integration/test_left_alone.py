"""Targets that a process does not know: how long they are left to others, and when what goes there fails."""

import pytest
from sqlalchemy import Connection
from support.ledger import MINUTE, NOW, target_of

from jobs.delivery.left_alone import LeftAlone
from jobs.delivery_state import Deliver
from jobs.run import Consequences, Outcome, Served, Trigger
from jobs.store import deliveries, instances, runs

ANSWER = Outcome.succeeded("hello", served=Served("zai", "glm-5", "key"))


@pytest.fixture
def here(db: Connection) -> int:
    """Return this daemon's instance; something goes to the target `ops`."""
    instance = instances.register(db, kind="daemon", version="0", now=NOW)
    run = runs.add(db, job="digest", trigger=Trigger.MANUAL, instance_id=instance, now=NOW)
    run = runs.start(db, run, primary=target_of(), instance_id=instance, now=NOW)
    runs.finish(db, run, ANSWER, now=NOW, consequences=Consequences(deliver=(Deliver("ops"),)))
    return instance


def may_fail(db: Connection, left: LeftAlone, *, tick: float = 60.0) -> bool:
    return left.may_fail(db, "ops", now=NOW, tick=tick)


def test_what_was_seen_to_be_left_alone_all_the_time_is_given_up() -> None:
    left = LeftAlone(instance_id=1, given_up_after=MINUTE)
    left.see(["ops", "mail"], tick=0)
    left.see(["ops"], tick=30)
    left.see(["ops", "mail"], tick=59)

    assert left.given_up(tick=59) == set()
    assert left.given_up(tick=60) == {"ops"}
    assert left.given_up(tick=119) == {"ops", "mail"}


def test_where_nobody_else_is_nobody_is_waited_for(db: Connection, here: int) -> None:
    assert may_fail(db, LeftAlone(instance_id=here), tick=0)


def test_beside_another_process_only_what_is_given_up_and_still_left_alone_fails(
    db: Connection, here: int
) -> None:
    """The other one may have begun with it just now."""
    other = instances.register(db, kind="daemon", version="0", now=NOW)
    left = LeftAlone(instance_id=here, given_up_after=MINUTE)
    assert not may_fail(db, left)
    left.see(["ops"], tick=0)
    assert not may_fail(db, left, tick=59)
    assert may_fail(db, left)
    (seen,) = deliveries.due(db, instance_id=other, now=NOW)["ops"]
    deliveries.claim(db, seen, instance_id=other, until=NOW + MINUTE, now=NOW)
    assert not may_fail(db, left)
