"""Every table, with the constraints that make a wrong row impossible to write."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    func,
    text,
)

from jobs.attempt import AttemptOutcome, Purpose, Step
from jobs.credential import CredentialKind
from jobs.errors import ErrorClass
from jobs.mark import Scope
from jobs.run import FINAL_STATES, SCHEDULED_TRIGGERS, RunState, Trigger

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes; kept without a zone, in an order that sorts, with microseconds."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive datetime: nobody knows which moment it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the store")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back what was stored, as UTC."""
        return value.replace(tzinfo=UTC) if value else None


def _one_of(column: str, values: Any, *, nullable: bool = False) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    rule = f"{column} IN ({listed})"
    return CheckConstraint(f"{column} IS NULL OR {rule}" if nullable else rule, name=f"{column}_known")


_FINAL = ", ".join(f"'{state}'" for state in FINAL_STATES)
_SCHEDULED = ", ".join(f"'{trigger}'" for trigger in SCHEDULED_TRIGGERS)

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
    _one_of("kind", ("daemon", "command")),
)

jobs = Table(
    "jobs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("first_seen_at", UtcDateTime, nullable=False),
    Column("schedule_key", Text),
    Column("cursor", UtcDateTime),
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
    Column("not_before", UtcDateTime),
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
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    _one_of("state", RunState),
    _one_of("trigger", Trigger),
    _one_of("error_class", ErrorClass, nullable=True),
    _one_of("fallback_reason", ErrorClass, nullable=True),
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
        sqlite_where=text(f"trigger IN ({_SCHEDULED})"),
        postgresql_where=text(f"trigger IN ({_SCHEDULED})"),
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
        "ix_runs_open",
        "state",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
    sqlite_autoincrement=True,
)

credentials = Table(
    "credentials",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("quota_group", Text, nullable=False),
    Column("fingerprint", Text),
    Column("reset_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    _one_of("kind", CredentialKind),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="SET NULL")),
    Column("try", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("target_index", Integer, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("credential", Text),
    Column("quota_group", Text),
    Column("outcome", Text, nullable=False),
    Column("error_class", Text),
    Column("http_status", Integer),
    Column("code", Text),
    Column("rule", Text),
    Column("message", Text),
    Column("retry_after", Float),
    Column("waited", Float, nullable=False, server_default="0"),
    Column("wait_reason", Text),
    Column("recovery", Text),
    Column("request_id", Text),
    Column("started_at", UtcDateTime, nullable=False),
    Column("latency", Float),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    ForeignKeyConstraint(["provider", "credential"], ["credentials.provider", "credentials.label"]),
    UniqueConstraint("run_id", "ordinal"),
    UniqueConstraint("id", "provider", "credential"),
    UniqueConstraint("id", "provider", "quota_group"),
    UniqueConstraint("id", "provider", "base_url"),
    UniqueConstraint("id", "provider", "model"),
    _one_of("purpose", Purpose),
    _one_of("outcome", AttemptOutcome),
    _one_of("error_class", ErrorClass, nullable=True),
    _one_of("recovery", Step, nullable=True),
    CheckConstraint("outcome <> 'failed' OR error_class IS NOT NULL", name="failed_has_class"),
    CheckConstraint("outcome <> 'succeeded' OR error_class IS NULL", name="succeeded_has_none"),
    CheckConstraint("outcome = 'passed_over' OR credential IS NOT NULL", name="request_has_credential"),
    CheckConstraint("(credential IS NULL) = (quota_group IS NULL)", name="group_goes_with_credential"),
    CheckConstraint("message IS NULL OR length(message) <= 200", name="message_is_short"),
    Index("ix_attempts_credential", "provider", "credential", "id"),
    Index("ix_attempts_endpoint", "provider", "base_url", "id"),
    sqlite_autoincrement=True,
)

# A composite foreign key with a NULL in it is not checked (SQL's MATCH SIMPLE), so each of the four below
# holds exactly for the scopes that use its column, and the CHECK says which columns those are.
marks = Table(
    "marks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("credential", Text),
    Column("quota_group", Text),
    Column("base_url", Text),
    Column("model", Text),
    Column("error_class", Text, nullable=False),
    Column("code", Text),
    Column("until", UtcDateTime),
    Column("until_source", Text, nullable=False),
    Column("stated_until", UtcDateTime),
    Column("fingerprint", Text),
    Column("step", Integer, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("attempt_id", Integer, nullable=False),
    ForeignKeyConstraint(
        ["attempt_id", "provider", "credential"], ["attempts.id", "attempts.provider", "attempts.credential"]
    ),
    ForeignKeyConstraint(
        ["attempt_id", "provider", "quota_group"],
        ["attempts.id", "attempts.provider", "attempts.quota_group"],
    ),
    ForeignKeyConstraint(
        ["attempt_id", "provider", "base_url"], ["attempts.id", "attempts.provider", "attempts.base_url"]
    ),
    ForeignKeyConstraint(
        ["attempt_id", "provider", "model"], ["attempts.id", "attempts.provider", "attempts.model"]
    ),
    ForeignKeyConstraint(["provider", "credential"], ["credentials.provider", "credentials.label"]),
    _one_of("scope", Scope),
    _one_of("error_class", ErrorClass),
    CheckConstraint(
        " OR ".join(
            f"(scope = '{scope}' AND credential IS {'NOT ' * scope.on_credential}NULL"
            f" AND quota_group IS {'NOT ' * scope.on_group}NULL"
            f" AND base_url IS {'NOT ' * scope.on_endpoint}NULL"
            f" AND model IS {'NOT ' * scope.on_model}NULL)"
            for scope in Scope
        ),
        name="scope_fits",
    ),
    CheckConstraint("step > 0", name="step_positive"),
    Index(
        "uq_marks_subject",
        "provider",
        "scope",
        func.coalesce(text("credential"), text("''")),
        func.coalesce(text("quota_group"), text("''")),
        func.coalesce(text("base_url"), text("''")),
        func.coalesce(text("model"), text("''")),
        "error_class",
        unique=True,
    ),
)

tokens = Table(
    "tokens",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("login_id", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("access_token", LargeBinary, nullable=False),
    Column("refresh_token", LargeBinary),
    Column("client_id", Text),
    Column("account_id", Text),
    Column("issued_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    Column("spent_by", Integer, ForeignKey("attempts.id")),
    Column("grant_ends_at", UtcDateTime),
    Column("grant_warned_at", UtcDateTime),
    ForeignKeyConstraint(["provider", "label"], ["credentials.provider", "credentials.label"]),
    CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_is_whole"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("target", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", UtcDateTime),
    Column("last_error", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    _one_of("state", ("pending", "delivered", "failed")),
    CheckConstraint("(state = 'pending') = (finished_at IS NULL)", name="final_is_finished"),
)
