"""What daemons do about alerts, beside each other, and what a look at the ledger costs."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert
from support.alerting import WATCHED, beat, fail, open_alerts, refuse, rows, watched
from support.hang_guard import wait_ends
from support.ledger import DAY, NOW

from jobs import clock
from jobs.alert import AlertKind, Notice
from jobs.delivery.alert_rules import Watched
from jobs.delivery.alerts import EVERY, Alerts
from jobs.events import AlertTold, AttributionWasRefused, Event, Events
from jobs.store import alert_facts
from jobs.store.store import Store
from jobs.store.tables import jobs

OPENED = Notice.OPENED


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_what_is_read_at_every_beat_is_found_by_indexes(engine: Engine) -> None:
    """The tables that grow (runs, attempts, alerts) are never read whole; of the jobs' the rows are small."""
    said: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        said.append((statement, parameters))

    with engine.connect() as connection:
        alert_facts.facts(connection, since=NOW)
        cursor = connection.connection.cursor()
        plan = [
            row[3] for query, bound in said for row in cursor.execute(f"EXPLAIN QUERY PLAN {query}", bound)
        ]
    whole = {line for line in plan if line.startswith("SCAN") and "USING INDEX" not in line}
    assert whole == {"SCAN jobs", "SCAN marks", "SCAN tokens"}
    assert any("ix_runs_abandoned" in line for line in plan)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_thousands_that_fail_at_once_are_told_in_portions(db: Connection) -> None:
    """One write is never long; what is left comes at the next beat."""
    many = {f"job-{number}": None for number in range(600)}
    rows_ = [{"name": name, "first_seen_at": NOW, "consecutive_failures": 3} for name in many]
    db.execute(insert(jobs), rows_)
    by = replace(WATCHED, jobs=many)
    assert [len(beat(db, by=by)) for _ in range(3)] == [500, 100, 0]
    assert len(rows(db, "id")) == 2


@pytest.fixture
def both_stores(database: str, engine: Engine) -> Any:
    """Yield two ways to one database, as two daemons have them."""
    two = [Store(database) for _ in range(2)]
    yield two
    for each in two:
        each.close()


def watcher(store: Store, heard: list[Event], by: Watched = WATCHED, *, every: timedelta = EVERY) -> Alerts:
    """Return what a daemon judges with; it hears what it says."""
    return Alerts(
        store,
        Events(heard.append),
        by,
        wake=lambda: heard.append(None),  # type: ignore[arg-type]
        instance_id=0,
        every=every,
    )


@pytest.mark.anyio
async def test_two_daemons_that_judge_at_once_tell_everything_once(
    both_stores: list[Store], engine: Engine
) -> None:
    with engine.begin() as connection:
        for number in range(4):
            fail(connection, job=f"job-{number}")
    by = replace(WATCHED, jobs={f"job-{number}": None for number in range(4)})
    heard: list[Event] = []
    daemons = [watcher(store, heard, by) for store in both_stores]
    told = await asyncio.gather(*(each.judge() for each in daemons * 3))
    assert sum(told) == 4
    assert sorted(each.job or "" for each in heard if isinstance(each, AlertTold)) == sorted(by.jobs)


@pytest.mark.anyio
async def test_whoever_listens_is_told_and_the_outbox_is_woken(
    both_stores: list[Store], engine: Engine
) -> None:
    with engine.begin() as connection:
        fail(connection)
    heard: list[Event] = []
    await watcher(both_stores[0], heard).judge()
    said = AlertTold(AlertKind.JOB_FAILING, OPENED, "digest fails: 3 failed runs in a row", job="digest")
    assert heard == [said, None]


@pytest.mark.anyio
async def test_with_nobody_to_tell_nothing_is_written(both_stores: list[Store], engine: Engine) -> None:
    with engine.begin() as connection:
        fail(connection)
    assert await watcher(both_stores[0], [], watched(to=())).judge() == 0
    with engine.begin() as connection:
        assert open_alerts(connection) == []


@pytest.mark.anyio
async def test_a_refused_attribution_is_told_at_once(both_stores: list[Store], engine: Engine) -> None:
    """Nobody waits for the next beat: here it would be tomorrow's. What its process says is why it looks."""
    heard: list[Event] = []
    alerts_ = watcher(both_stores[0], heard, every=DAY)
    watching = asyncio.create_task(alerts_.watch())
    for attempt in (7, 8):
        async with wait_ends():
            await both_stores[1].write(refuse, attempt, now=clock.utcnow())
            alerts_.hear(AttributionWasRefused(attempt, f"attempt {attempt} did not earn a mark"))
            while sum(isinstance(each, AlertTold) for each in heard) < attempt - 6:
                await asyncio.sleep(0.01)
    watching.cancel()
    kinds = {each.kind for each in heard if isinstance(each, AlertTold)}
    assert kinds == {AlertKind.ATTRIBUTION_REFUSED}


@pytest.mark.anyio
async def test_two_daemons_that_find_a_refused_attribution_tell_it_once(
    both_stores: list[Store], engine: Engine
) -> None:
    with engine.begin() as connection:
        refuse(connection, now=clock.utcnow())
    heard: list[Event] = []
    told = await asyncio.gather(*(watcher(store, heard).judge() for store in both_stores * 3))
    assert sum(told) == 1
