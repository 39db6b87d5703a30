"""What a delivery says of a run whose job has left the configuration: its days stay those of the job."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection
from support.ledger import target_of

from jobs.delivery.contents import content_of
from jobs.delivery.file_name import file_name
from jobs.delivery_state import Deliver
from jobs.run import Consequences, Outcome, Served, Trigger
from jobs.store import deliveries, instances, runs
from jobs.store import jobs as job_verbs
from scheduler.timetable import Timetable

EARLY = datetime(2026, 11, 20, 22, 30, tzinfo=UTC)
"""The next day in Berlin and in Tokyo, the same day in New York."""
TOKYO = Timetable(("30 7 * * *",), "Asia/Tokyo").key()
NAMES = {"Asia/Tokyo": "2026-11-21 07:30", "America/New_York": "2026-11-20 17:30", "UTC": "2026-11-20 22:30"}
ANSWER = Outcome.succeeded("All is well.", served=Served("zai", "glm-5.1", "main"))


def name_of(db: Connection, zones: dict[str, ZoneInfo], zone: str) -> str:
    """Return the name that a file of a run's delivery gets; the run was due early."""
    instance = instances.register(db, kind="daemon", version="0", now=EARLY)
    run = runs.add(db, job="digest", trigger=Trigger.MANUAL, instance_id=instance, now=EARLY)
    run = runs.start(db, run, primary=target_of(), instance_id=instance, now=EARLY)
    wanted = Consequences(deliver=(Deliver("inbox"),))
    runs.finish(db, run, ANSWER, now=EARLY, consequences=wanted, instance_id=instance)
    (seen,) = deliveries.due(db, instance_id=instance, now=EARLY)["inbox"]
    until = EARLY + timedelta(minutes=1)
    claimed = deliveries.claim(db, seen, instance_id=instance, until=until, now=EARLY)
    assert claimed is not None
    message = content_of(db, claimed, zones, zone=ZoneInfo(zone))
    assert message is not None
    return file_name("{scheduled_for:%Y-%m-%d %H:%M}", message)


@pytest.mark.parametrize(
    ("timetables", "zone"),
    [
        ([TOKYO], "Asia/Tokyo"),
        ([TOKYO, None], "Asia/Tokyo"),
        ([Timetable(("@daily",), "UTC").key(), TOKYO, None], "Asia/Tokyo"),
        ([None], "America/New_York"),
        ([], "America/New_York"),
        ([Timetable(("@daily",), "Mars/Olympus").key(), None], "America/New_York"),
    ],
)
def test_a_job_that_is_gone_is_told_in_the_zone_of_its_last_timetable_or_in_that_of_all(
    db: Connection, timetables: list[str | None], zone: str
) -> None:
    """Else its result would get another name, and take the place of another day's."""
    for number, timetable in enumerate(timetables):
        at = EARLY - timedelta(days=9 - number)
        job_verbs.see(db, {} if timetable is None and number else {"digest": timetable}, now=at)

    assert name_of(db, {}, "America/New_York") == NAMES[zone]


def test_a_job_that_is_there_is_told_in_its_own_zone(db: Connection) -> None:
    job_verbs.see(db, {"digest": TOKYO}, now=EARLY)

    assert name_of(db, {"digest": ZoneInfo("UTC")}, "America/New_York") == NAMES["UTC"]
