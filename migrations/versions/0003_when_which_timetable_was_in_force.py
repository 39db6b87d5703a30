"""When which timetable was in force, so that everything owed can be recomputed; and what tries wait for."""

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OFF = "off"
ADDED: Mapping[str, Mapping[str, sa.Column[Any]]] = {
    "jobs": {
        "period_id": sa.Column("period_id", sa.Integer()),
        "pruned_until": sa.Column("pruned_until", sa.DateTime()),
    },
    "runs": {
        "crashes": sa.Column("crashes", sa.Integer(), server_default="0", nullable=False),
        "behind": sa.Column("behind", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        "cancel_requested": sa.Column("cancel_requested", sa.Text()),
        "silent": sa.Column("silent", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    },
}
JOBS = sa.table(
    "jobs",
    sa.column("name", sa.Text),
    sa.column("first_seen_at", sa.DateTime),
    sa.column("schedule_key", sa.Text),
    sa.column("cursor", sa.DateTime),
    sa.column("paused_at", sa.DateTime),
    sa.column("period_id", sa.Integer),
)
# Whoever removes a run is asked by the database who points to it.
POINTING: tuple[tuple[str, str, str, sa.TextClause | None], ...] = (
    ("runs", "ix_runs_parent", "parent_id", sa.text("parent_id IS NOT NULL")),
    ("deliveries", "ix_deliveries_run", "run_id", None),
)
RUNS = sa.table(
    "runs", sa.column("job", sa.Text), sa.column("trigger", sa.Text), sa.column("scheduled_for", sa.DateTime)
)
PERIODS = sa.table(
    "schedule_periods",
    sa.column("id", sa.Integer),
    sa.column("job", sa.Text),
    sa.column("since", sa.DateTime),
    sa.column("until", sa.DateTime),
    sa.column("timetable", sa.Text),
    sa.column("paused", sa.Boolean),
)


def upgrade() -> None:
    for table, columns in ADDED.items():
        for added in columns.values():
            op.add_column(table, added)
    create_periods()
    fill_periods()
    op.drop_column(
        "jobs", "schedule_key"
    )  # in place: to build a table anew would empty those that point to it
    index_open_runs("job", "id")
    for table, name, column, where in POINTING:
        op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    for table, name, *_ in POINTING:
        op.drop_index(name, table)
    op.add_column("jobs", sa.Column("schedule_key", sa.Text()))
    restore_keys()
    for index in ("uq_schedule_periods_open", "ix_schedule_periods_job"):
        op.drop_index(index, "schedule_periods")
    op.drop_table("schedule_periods")
    for table, columns in ADDED.items():
        for column in columns:
            op.drop_column(table, column)
    index_open_runs("state")


def index_open_runs(*columns: str) -> None:
    """A job's open runs are asked for at each start; its ended ones are many."""
    not_ended = sa.text("finished_at IS NULL")
    op.drop_index("ix_runs_open", "runs")
    op.create_index("ix_runs_open", "runs", list(columns), sqlite_where=not_ended, postgresql_where=not_ended)


def create_periods() -> None:
    op.create_table(
        "schedule_periods",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(), nullable=False),
        sa.Column("until", sa.DateTime()),
        sa.Column("timetable", sa.Text()),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint(
            "until IS NULL OR until >= since", name=op.f("ck_schedule_periods_ends_after_it_begins")
        ),
        sa.ForeignKeyConstraint(["job"], ["jobs.name"], name=op.f("fk_schedule_periods_job")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_periods")),
        sqlite_autoincrement=True,
    )
    still_open = sa.text("until IS NULL")
    op.create_index("ix_schedule_periods_job", "schedule_periods", ["job", "id"])
    op.create_index(
        "uq_schedule_periods_open",
        "schedule_periods",
        ["job"],
        unique=True,
        sqlite_where=still_open,
        postgresql_where=still_open,
    )


def fill_periods() -> None:
    """What was in force is known since the cursor: nothing before it is owed, or was ever written down.

    A clock that was set back may have left rows ahead of a cursor: it goes on behind them.
    """
    connection = op.get_bind()
    scheduled = RUNS.c.trigger.in_(("schedule", "catch_up"))
    ahead = sa.select(sa.func.max(RUNS.c.scheduled_for)).where(RUNS.c.job == JOBS.c.name, scheduled)
    newest = ahead.scalar_subquery()
    connection.execute(sa.update(JOBS).where(JOBS.c.cursor < newest).values(cursor=newest))
    known = connection.execute(sa.select(JOBS)).all()
    for job in known:
        row = {
            "job": job.name,
            "since": job.cursor or job.first_seen_at,
            "timetable": timetable_of(job.schedule_key),
            "paused": job.paused_at is not None,
        }
        made = connection.execute(sa.insert(PERIODS).values(row).returning(PERIODS.c.id)).scalar_one()
        connection.execute(sa.update(JOBS).where(JOBS.c.name == job.name).values(period_id=made))


def timetable_of(schedule_key: str | None) -> str | None:
    """Return a timetable as it is stored from now on; a key was the schedule's line and its zone."""
    if not schedule_key or schedule_key == OFF:
        return None
    *words, zone = schedule_key.split()
    return json.dumps(
        {"lines": [" ".join(words)], "timezone": zone},
        ensure_ascii=False,
        separators=(",", ":"),
        sort_keys=True,
    )


def restore_keys() -> None:
    """Earlier versions know one line and a zone; a timetable that says more begins anew there."""
    connection = op.get_bind()
    for period in connection.execute(sa.select(PERIODS).where(PERIODS.c.until.is_(None))).all():
        table = json.loads(period.timetable) if period.timetable else None
        key = f"{table['lines'][0]} {table['timezone']}" if table else OFF
        connection.execute(sa.update(JOBS).where(JOBS.c.name == period.job).values(schedule_key=key))
