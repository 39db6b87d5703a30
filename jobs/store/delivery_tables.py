"""The tables of what leaves the house: deliveries of results and notices, and the alerts behind notices."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Table, Text, text

from jobs.alert import AlertKind, Notice
from jobs.delivery_state import DeliveryState
from jobs.store.columns import UtcDateTime, metadata, one_of

alerts = Table(
    "alerts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("job", Text),
    Column("provider", Text),
    Column("credential", Text),
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="SET NULL")),
    Column("message", Text, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("told_at", UtcDateTime, nullable=False),
    Column("reminders", Integer, nullable=False, server_default="0"),
    Column("resolved_at", UtcDateTime),
    one_of("kind", AlertKind),
    CheckConstraint("told_at >= opened_at", name="told_after_it_opened"),
    Index(
        "uq_alerts_open",
        "key",
        unique=True,
        sqlite_where=text("resolved_at IS NULL"),
        postgresql_where=text("resolved_at IS NULL"),
    ),
    Index("ix_alerts_key", "key", "id"),
    Index(
        "ix_alerts_run",
        "run_id",
        sqlite_where=text("run_id IS NOT NULL"),
        postgresql_where=text("run_id IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE")),
    Column("alert_id", Integer, ForeignKey("alerts.id", ondelete="CASCADE")),
    Column("notice", Text),
    Column("target", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", UtcDateTime),
    Column("sending_by", Integer, ForeignKey("instances.id")),
    Column("sending_until", UtcDateTime),
    Column("last_error", Text),
    Column("subject", Text),
    Column("body", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    one_of("state", DeliveryState),
    one_of("notice", Notice, nullable=True),
    CheckConstraint("(state = 'pending') = (finished_at IS NULL)", name="final_is_finished"),
    CheckConstraint("state <> 'pending' OR next_attempt_at IS NOT NULL", name="pending_has_its_time"),
    CheckConstraint("(run_id IS NULL) <> (alert_id IS NULL)", name="is_of_a_run_or_an_alert"),
    CheckConstraint(
        "(alert_id IS NULL) = (notice IS NULL) AND (alert_id IS NULL) = (subject IS NULL) "
        "AND (alert_id IS NULL) = (body IS NULL)",
        name="notice_has_its_words",
    ),
    CheckConstraint("(sending_by IS NULL) = (sending_until IS NULL)", name="sender_has_its_time"),
    CheckConstraint("sending_by IS NULL OR state = 'pending'", name="only_pending_is_sent"),
    CheckConstraint("failures <= attempts", name="failures_were_attempts"),
    Index("ix_deliveries_run", "run_id"),
    Index(
        "uq_deliveries_run_target",
        "run_id",
        "target",
        unique=True,
        sqlite_where=text("run_id IS NOT NULL"),
        postgresql_where=text("run_id IS NOT NULL"),
    ),
    Index(
        "ix_deliveries_alert",
        "alert_id",
        sqlite_where=text("alert_id IS NOT NULL"),
        postgresql_where=text("alert_id IS NOT NULL"),
    ),
    Index(
        "ix_deliveries_due",
        "next_attempt_at",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
    sqlite_autoincrement=True,
)
