"""The tables of processes, jobs and runs."""

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    text,
)

from jobs.errors import ErrorClass
from jobs.run import FINAL_STATES, SCHEDULED_TRIGGERS, RunState, Trigger
from jobs.store.columns import UtcDateTime, metadata, one_of

_FINAL = ", ".join(f"'{state}'" for state in FINAL_STATES)
_TRIGGERS = ", ".join(f"'{trigger}'" for trigger in SCHEDULED_TRIGGERS)
SCHEDULED = text(f"trigger IN ({_TRIGGERS})")
"""Rows of a schedule, in the words of their index."""

instances = Table(
    "instances",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("heartbeat_at", UtcDateTime, nullable=False),
    Column("stopped_at", UtcDateTime),
    one_of("kind", ("daemon", "command")),
)

jobs = Table(
    "jobs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("first_seen_at", UtcDateTime, nullable=False),
    Column("cursor", UtcDateTime),
    Column("period_id", Integer),
    Column("pruned_until", UtcDateTime),
    Column("paused_at", UtcDateTime),
    Column("pause_reason", Text),
    Column("held_until", UtcDateTime),
    Column("opens_at", UtcDateTime),
    Column("held_by", Integer),
    Column("hold_key", Text),
    Column("hold_reason", Text),
    Column("probed_at", UtcDateTime),
    Column("consecutive_failures", Integer, nullable=False, server_default="0"),
    Column("runs_started", Integer, nullable=False, server_default="0"),
    Index(
        "ix_jobs_held",
        "hold_key",
        sqlite_where=text("hold_key IS NOT NULL"),
        postgresql_where=text("hold_key IS NOT NULL"),
    ),
)

schedule_periods = Table(
    "schedule_periods",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job", Text, ForeignKey("jobs.name"), nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("until", UtcDateTime),
    Column("timetable", Text),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("until IS NULL OR until >= since", name="ends_after_it_begins"),
    Index("ix_schedule_periods_job", "job", "id"),
    Index(
        "uq_schedule_periods_open",
        "job",
        unique=True,
        sqlite_where=text("until IS NULL"),
        postgresql_where=text("until IS NULL"),
    ),
    sqlite_autoincrement=True,
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job", Text, nullable=False),
    Column("scheduled_for", UtcDateTime, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("parent_id", Integer, ForeignKey("runs.id", ondelete="SET NULL")),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("span_first", UtcDateTime),
    Column("span_count", Integer, nullable=False, server_default="1"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("not_before", UtcDateTime),
    Column("behind", Boolean, nullable=False, server_default=text("false")),
    Column("cancel_requested", Text),
    Column("instance_id", Integer, ForeignKey("instances.id")),
    Column("requested_provider", Text),
    Column("requested_model", Text),
    Column("served_provider", Text),
    Column("served_model", Text),
    Column("served_credential", Text),
    Column("fallback", Boolean, nullable=False, server_default=text("false")),
    Column("fallback_reason", Text),
    Column("error_class", Text),
    Column("error_message", Text),
    Column("vars", JSON),
    Column("prompt", Text),
    Column("output", Text),
    Column("truncated", Boolean, nullable=False, server_default=text("false")),
    Column("compressed_from", Integer),
    Column("compressed_to", Integer),
    Column("title", Text),
    Column("silent", Boolean, nullable=False, server_default=text("false")),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    one_of("state", RunState),
    one_of("trigger", Trigger),
    one_of("error_class", ErrorClass, nullable=True),
    one_of("fallback_reason", ErrorClass, nullable=True),
    CheckConstraint(f"(state IN ({_FINAL})) = (finished_at IS NOT NULL)", name="final_is_finished"),
    CheckConstraint(
        "state <> 'running' OR (started_at IS NOT NULL AND tries > 0)", name="running_is_started"
    ),
    CheckConstraint(
        "state <> 'succeeded' OR (served_provider IS NOT NULL AND output IS NOT NULL AND length(output) > 0)",
        name="succeeded_has_answer",
    ),
    CheckConstraint("(span_count = 1) = (span_first IS NULL)", name="span_is_whole"),
    CheckConstraint("span_count = 1 OR state IN ('missed', 'skipped')", name="span_never_ran"),
    Index(
        "uq_runs_instant",
        "job",
        "scheduled_for",
        unique=True,
        sqlite_where=SCHEDULED,
        postgresql_where=SCHEDULED,
    ),
    Index(
        "uq_runs_after",
        "job",
        "parent_id",
        unique=True,
        sqlite_where=text("trigger = 'after'"),
        postgresql_where=text("trigger = 'after'"),
    ),
    Index("ix_runs_job_id", "job", "id"),
    Index(
        "ix_runs_parent",
        "parent_id",
        sqlite_where=text("parent_id IS NOT NULL"),
        postgresql_where=text("parent_id IS NOT NULL"),
    ),
    Index(
        "ix_runs_open",
        "job",
        "id",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
    Index(
        "ix_runs_abandoned",
        "finished_at",
        sqlite_where=text("state = 'abandoned'"),
        postgresql_where=text("state = 'abandoned'"),
    ),
    sqlite_autoincrement=True,
)
