"""The migrations build exactly the tables of `jobs/store/tables.py`, and leave other databases alone."""

import re
import sqlite3
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine
from support.revisions import step_up

from jobs.errors import Unavailable
from jobs.store import claims, migrate
from jobs.store import jobs as job_verbs
from jobs.store.claims import JobClaim, NewRun
from jobs.store.engine import open_engine
from jobs.store.revision import REVISION, require, revision_of
from jobs.store.tables import metadata
from scheduler.ledger_audit import audited
from scheduler.periods import Period
from scheduler.planner import Plan, Policy, plan
from scheduler.timetable import Timetable

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
OLD_DATABASES = Path(__file__).parents[1] / "fixtures" / "databases"
NOT_OURS = ("alembic_version", "sqlite_sequence")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database is, before there is one."""
    return tmp_path / "promptd.db"


@pytest.fixture
def url(path: Path) -> str:
    """Return its URL."""
    return f"sqlite:///{path}"


def parts_of(sql: str) -> list[str]:
    """Return a CREATE statement as its top-level parts, sorted: SQL gives their order no meaning."""
    sql = re.sub(r"\s+", " ", sql).replace("( ", "(").replace(" )", ")")
    head, _, rest = sql.partition("(")
    parts, depth, start = [], 0, 0
    for at, character in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if (character == "," and depth == 0) or depth < 0:
            parts.append(rest[start:at].strip())
            start = at + 1
    return [head.strip(), *sorted(parts), rest[start:].strip()]


def schema_of(path: Path) -> dict[tuple[str, str], list[str]]:
    """Return everything that a database declares, except what Alembic and SQLite keep for themselves."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
        ).fetchall()
    connection.close()
    return {(kind, name): parts_of(sql) for kind, name, sql in rows if name not in NOT_OURS}


def test_a_fresh_database_has_exactly_the_tables_of_the_program(path: Path, url: str, tmp_path: Path) -> None:
    """Columns, CHECKs, foreign keys, AUTOINCREMENT and indexes on expressions, word by word."""
    wanted = tmp_path / "wanted.db"
    engine = open_engine(f"sqlite:///{wanted}", writes=True)
    with engine.begin() as connection:
        metadata.create_all(connection)
    engine.dispose()

    migrate.upgrade(url, now=NOW)

    assert schema_of(path) == schema_of(wanted)


def test_alembic_sees_no_difference_either(url: str) -> None:
    """What `make check` asks."""
    migrate.upgrade(url, now=NOW)

    assert migrate.differences(url) == []


def test_the_revision_that_is_known_without_alembic_is_the_head(url: str) -> None:
    """`revision.REVISION` is written by hand."""
    assert migrate.head() == REVISION


def test_a_migrated_database_is_at_the_head(url: str) -> None:
    """An empty one has no revision."""
    assert migrate.current(url) is None

    migrate.upgrade(url, now=NOW)

    assert migrate.current(url) == REVISION
    migrate.require_current(url)


def test_a_database_that_was_empty_needs_no_backup(path: Path, url: str) -> None:
    """There is nothing in it to lose."""
    assert migrate.upgrade(url, now=NOW) is None
    assert list(path.parent.glob("*.bak")) == []


def test_an_upgrade_of_a_current_database_does_nothing(path: Path, url: str) -> None:
    """Neither to it nor beside it."""
    migrate.upgrade(url, now=NOW)
    before = dump_of(path)

    assert migrate.upgrade(url, now=NOW) is None
    assert dump_of(path) == before
    assert list(path.parent.glob("*.bak")) == []


def dump_of(path: Path) -> list[str]:
    """Return the whole content of a database as SQL."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_a_database_of_a_newer_program_is_refused_and_not_touched(path: Path, url: str) -> None:
    """Nobody here knows what its tables mean."""
    migrate.upgrade(url, now=NOW)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("CREATE TABLE of_the_future (id INTEGER)")
    connection.close()
    before = dump_of(path)

    with pytest.raises(Unavailable, match="newer promptd"):
        migrate.upgrade(url, now=NOW)

    assert dump_of(path) == before
    assert list(path.parent.glob("*.bak")) == []


def test_down_to_base_and_up_again_is_the_same_database(path: Path, url: str) -> None:
    """A downgrade leaves none of our tables behind."""
    migrate.upgrade(url, now=NOW)
    before = schema_of(path)

    migrate.downgrade(url, "base")
    assert schema_of(path) == {}
    assert migrate.current(url) is None

    migrate.upgrade(url, now=NOW)
    assert schema_of(path) == before


def test_each_way_back_leads_to_the_schema_of_its_revision_and_up_again_to_the_newest(
    path: Path, url: str
) -> None:
    """Word by word, and with no warning that an operator would see."""
    made = {}
    for revision in migrate.revisions():
        step_up(url, revision)
        made[revision] = schema_of(path)
    assert ("index", "uq_marks_subject") in made["0001"]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for revision in reversed(migrate.revisions()[:-1]):
            migrate.downgrade(url, revision)
            assert schema_of(path) == made[revision], revision
            migrate.upgrade(url, now=NOW)
            assert schema_of(path) == made[REVISION], revision


def test_an_unmigrated_database_is_refused_with_the_command_that_mends_it(path: Path, url: str) -> None:
    """Reading commands ask without loading Alembic."""
    path.touch(0o600)
    engine = create_engine(url)
    with engine.connect() as connection, pytest.raises(Unavailable, match="promptd db upgrade"):
        require(connection)
    engine.dispose()

    migrate.upgrade(url, now=NOW)
    with engine.connect() as connection:
        require(connection)
        assert revision_of(connection) == REVISION
    engine.dispose()


def rows_of(path: Path) -> dict[str, list[dict[str, object]]]:
    """Return every row of every table of ours."""
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {
            name: [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY rowid")]
            for name in names
            if name not in NOT_OURS
        }
    connection.close()
    return found


def test_a_backup_precedes_an_upgrade(path: Path, url: str) -> None:
    restored(path, OF_ISSUE_3)
    dumped = dump_of(path)

    backup = migrate.upgrade(url, now=NOW)

    assert backup is not None
    assert dump_of(backup) == dumped


OF_ISSUE_3 = OLD_DATABASES / "0002.sql"
AFTER_IT = datetime(2026, 11, 21, 15, tzinfo=UTC)


def restored(path: Path, kept: Path) -> None:
    """Make a database of what was dumped."""
    path.touch(0o600)
    with sqlite3.connect(path) as connection:
        connection.executescript(kept.read_text("utf-8"))
    connection.close()


def test_what_was_in_force_is_known_from_the_cursor_on_after_an_upgrade(path: Path, url: str) -> None:
    """Each job's line and zone as the configuration writes them now, so that it is no other timetable."""
    restored(path, OF_ISSUE_3)
    cursors = {row["name"]: row["cursor"] for row in rows_of(path)["jobs"]}

    migrate.upgrade(url, now=NOW)

    rows = rows_of(path)
    periods = {row["job"]: row for row in rows["schedule_periods"]}
    assert {row["name"]: row["period_id"] for row in rows["jobs"]} == {
        name: period["id"] for name, period in periods.items()
    }
    assert {name: row["since"] for name, row in periods.items()} == cursors
    assert {row["until"] for row in periods.values()} == {None}
    said = {name: row["timetable"] for name, row in periods.items()}
    for name, line, zone in (
        ("digest", "every 1s", "Europe/Berlin"),
        ("morning", "0  7 * *  mon-fri", "Europe/Berlin"),
        ("nightly", "@daily", "America/New_York"),
    ):
        assert said[name] == Timetable((line,), zone).key()
    assert [said[name] for name in ("off", "gone", "stuck")] == [None] * 3
    assert {name for name, row in periods.items() if row["paused"]} == {"paused"}


def planned(connection: Connection, name: str) -> Plan:
    """Return what a daemon that starts after the upgrade decides for a job."""
    state = job_verbs.states(connection, [name])[name]
    return plan(
        [
            Period(
                each.since,
                each.until,
                Timetable.from_key(each.timetable).schedule(now=AFTER_IT, anchor=state.first_seen_at)
                if each.timetable
                else None,
                each.paused,
            )
            for each in state.periods
        ],
        job=name,
        cursor=state.decided_until,
        now=AFTER_IT,
        watched_since=AFTER_IT,
        policy=Policy(),
    )


def claim_of(connection: Connection, name: str) -> JobClaim:
    """Return what was planned for a job, as a daemon claims it."""
    state, made = job_verbs.states(connection, [name])[name], planned(connection, name)
    rows = tuple(
        NewRun(name, each.instant, each.trigger, each.state, each.reason, each.first, each.count)
        for each in made.decisions
    )
    return JobClaim(name, state.decided_until, state.period_id, made.cursor, rows)


def test_the_program_of_today_goes_on_from_the_cursors_and_owes_nothing_twice_or_never(
    path: Path, url: str
) -> None:
    """Its files say what they said; each second since the old program stopped has its one row then."""
    restored(path, OF_ISSUE_3)
    migrate.upgrade(url, now=NOW)
    lines = {"digest": "every 1s", "paused": "every 2s", "minute": "* * * * *", "morning": "0 7 * * mon-fri"}
    files = {name: Timetable((line,), "Europe/Berlin").key() for name, line in lines.items()}
    engine = open_engine(url, writes=True)
    with engine.begin() as connection:
        before = job_verbs.states(connection)
        seen = job_verbs.see(connection, files, now=AFTER_IT)
        assert {name: seen[name] for name in files} == {name: before[name] for name in files}
        wanted = [claim_of(connection, name) for name in files]
        claimed = claims.claim(connection, wanted, instance_id=1, now=AFTER_IT)
        found = audited(connection, since=None, now=AFTER_IT)
    engine.dispose()

    assert claimed.stale == ()
    assert [(run.job, run.scheduled_for) for run in claimed.ours] == [
        ("digest", AFTER_IT),
        ("minute", AFTER_IT),
    ]
    spans = {(row.job, row.reason): row.span_count for row in claimed.final}
    assert set(spans) == {("digest", "coalesced"), ("paused", "paused"), ("minute", "coalesced")}
    assert (found.ok, found.kinds) == (True, {})
    assert found.instants == sum(spans.values()) + 2
    assert found.unchecked["digest"][1] > 0


def test_a_downgrade_leads_to_the_tables_that_the_older_program_had_made(path: Path, url: str) -> None:
    restored(path, OF_ISSUE_3)
    schema = schema_of(path)
    migrate.upgrade(url, now=NOW)

    migrate.downgrade(url, "0002")

    assert {key: sorted(parts) for key, parts in schema_of(path).items()} == {
        key: sorted(parts) for key, parts in schema.items()
    }
