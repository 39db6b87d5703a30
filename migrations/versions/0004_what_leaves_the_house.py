"""Deliveries that can be sent, claimed and retried; alerts, and the notices of them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ALERT_KINDS = "'job_failing', 'job_held', 'credential_dead', 'credential_billing', 'login_ending', 'provider_keyless', 'run_abandoned', 'attribution_refused'"
# Columns that 0001 has made: they go over into the new table, and back.
KEPT = (
    *("id", "run_id", "target", "state", "idempotency_key", "attempts"),
    *("next_attempt_at", "last_error", "created_at", "finished_at"),
)
OPEN_ABANDONED = "state = 'abandoned'"


def upgrade() -> None:
    create_alerts()
    op.drop_index("ix_deliveries_run", "deliveries")
    op.rename_table("deliveries", "old_deliveries")
    free_names()
    create_deliveries()
    timed = "CASE WHEN state = 'pending' THEN COALESCE(next_attempt_at, created_at) ELSE next_attempt_at END"
    move("old_deliveries", "deliveries", {"next_attempt_at": timed})
    op.drop_table("old_deliveries")
    where = sa.text(OPEN_ABANDONED)
    op.create_index("ix_runs_abandoned", "runs", ["finished_at"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """What is of an alert has no place in the old table: it goes with the alerts."""
    op.drop_index("ix_runs_abandoned", "runs")
    for name in ("ix_deliveries_run", "uq_deliveries_run_target", "ix_deliveries_alert", "ix_deliveries_due"):
        op.drop_index(name, "deliveries")
    op.rename_table("deliveries", "old_deliveries")
    free_names()
    create_old_deliveries()
    move("old_deliveries", "deliveries", {}, " WHERE run_id IS NOT NULL")
    op.drop_table("old_deliveries")
    op.create_index("ix_deliveries_run", "deliveries", ["run_id"])
    op.drop_table("alerts")


def free_names() -> None:
    """On PostgreSQL constraints keep their names when their table gets another one, and are unique as indexes."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE old_deliveries RENAME CONSTRAINT pk_deliveries TO pk_old_deliveries")
        op.execute(
            "ALTER TABLE old_deliveries RENAME CONSTRAINT uq_deliveries_idempotency_key TO uq_old_deliveries_key"
        )
        op.execute("ALTER SEQUENCE deliveries_id_seq RENAME TO old_deliveries_id_seq")


def move(source: str, to: str, instead: dict[str, str], only: str = "") -> None:
    """Copy what both tables know, and let ids go on behind it."""
    values = ", ".join(instead.get(column, column) for column in KEPT)
    op.execute(f"INSERT INTO {to} ({', '.join(KEPT)}) SELECT {values} FROM {source}{only}")  # noqa: S608
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('deliveries', 'id'), (SELECT COALESCE(MAX(id), 0) + 1 FROM deliveries), false)"
        )


def shared_columns(*, run_nullable: bool) -> Sequence[sa.Column[Any]]:
    return (
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=run_nullable),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime()),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("finished_at", sa.DateTime()),
    )


def shared_constraints() -> Sequence[sa.Constraint]:
    return (
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'failed')", name=op.f("ck_deliveries_state_known")
        ),
        sa.CheckConstraint(
            "(state = 'pending') = (finished_at IS NULL)", name=op.f("ck_deliveries_final_is_finished")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_deliveries_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_deliveries_idempotency_key")),
    )


def create_old_deliveries() -> None:
    op.create_table("deliveries", *shared_columns(run_nullable=False), *shared_constraints())


def create_deliveries() -> None:
    op.create_table(
        "deliveries",
        *shared_columns(run_nullable=True),
        sa.Column("alert_id", sa.Integer()),
        sa.Column("notice", sa.Text()),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sending_by", sa.Integer()),
        sa.Column("sending_until", sa.DateTime()),
        sa.Column("subject", sa.Text()),
        sa.Column("body", sa.Text()),
        *shared_constraints(),
        *new_constraints(),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_deliveries_run", "deliveries", ["run_id"])
    index("uq_deliveries_run_target", "deliveries", ["run_id", "target"], "run_id IS NOT NULL", unique=True)
    index("ix_deliveries_alert", "deliveries", ["alert_id"], "alert_id IS NOT NULL")
    index("ix_deliveries_due", "deliveries", ["next_attempt_at"], "state = 'pending'")


def new_constraints() -> Sequence[sa.Constraint]:
    return (
        sa.CheckConstraint(
            "notice IS NULL OR notice IN ('opened', 'reminder', 'resolved')",
            name=op.f("ck_deliveries_notice_known"),
        ),
        sa.CheckConstraint(
            "state <> 'pending' OR next_attempt_at IS NOT NULL",
            name=op.f("ck_deliveries_pending_has_its_time"),
        ),
        sa.CheckConstraint(
            "(run_id IS NULL) <> (alert_id IS NULL)", name=op.f("ck_deliveries_is_of_a_run_or_an_alert")
        ),
        sa.CheckConstraint(
            "(alert_id IS NULL) = (notice IS NULL) AND (alert_id IS NULL) = (subject IS NULL) AND (alert_id IS NULL) = (body IS NULL)",
            name=op.f("ck_deliveries_notice_has_its_words"),
        ),
        sa.CheckConstraint(
            "(sending_by IS NULL) = (sending_until IS NULL)", name=op.f("ck_deliveries_sender_has_its_time")
        ),
        sa.CheckConstraint(
            "sending_by IS NULL OR state = 'pending'", name=op.f("ck_deliveries_only_pending_is_sent")
        ),
        sa.CheckConstraint("failures <= attempts", name=op.f("ck_deliveries_failures_were_attempts")),
        sa.ForeignKeyConstraint(
            ["alert_id"], ["alerts.id"], name=op.f("fk_deliveries_alert_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sending_by"], ["instances.id"], name=op.f("fk_deliveries_sending_by")),
    )


def create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("job", sa.Text()),
        sa.Column("provider", sa.Text()),
        sa.Column("credential", sa.Text()),
        sa.Column("run_id", sa.Integer()),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(), nullable=False),
        sa.Column("told_at", sa.DateTime(), nullable=False),
        sa.Column("reminders", sa.Integer(), server_default="0", nullable=False),
        sa.Column("resolved_at", sa.DateTime()),
        sa.CheckConstraint(f"kind IN ({ALERT_KINDS})", name=op.f("ck_alerts_kind_known")),
        sa.CheckConstraint("told_at >= opened_at", name=op.f("ck_alerts_told_after_it_opened")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_alerts_run_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        sqlite_autoincrement=True,
    )
    index("uq_alerts_open", "alerts", ["key"], "resolved_at IS NULL", unique=True)
    op.create_index("ix_alerts_key", "alerts", ["key", "id"])
    index("ix_alerts_run", "alerts", ["run_id"], "run_id IS NOT NULL")


def index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    clause = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=clause, postgresql_where=clause)
