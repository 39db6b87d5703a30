"""The ledger, credentials and marks."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = ("tokens", "marks", "deliveries", "attempts", "credentials", "runs", "jobs", "instances")
CLASSES = (
    "'config_error', 'auth', 'auth_dead', 'auth_unavailable', 'permission', 'rate_limit', "
    "'rate_limit_upstream', 'quota_window', 'quota_billing', 'overloaded', 'server_error', 'timeout', "
    "'connection', 'invalid_response', 'context_overflow', 'payload_too_large', 'content_filter', "
    "'model_not_found', 'entitlement', 'policy_blocked', 'bad_request', 'unknown'"
)
FINAL_STATES = "'succeeded', 'failed', 'timed_out', 'cancelled', 'skipped', 'missed', 'abandoned'"
SCHEDULED = "trigger IN ('schedule', 'catch_up')"
AFTER = "trigger = 'after'"
OPEN = "finished_at IS NULL"


def upgrade() -> None:
    create_instances()
    create_jobs()
    create_runs()
    create_credentials()
    create_attempts()
    create_marks()
    create_tokens()
    create_deliveries()


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)


def text(name: str, *, nullable: bool = True) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def texts(*names: str, nullable: bool = True) -> list[sa.Column[str]]:
    return [text(name, nullable=nullable) for name in names]


def whole(name: str, *, nullable: bool = True, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), server_default=default, nullable=nullable)


def moment(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(), nullable=nullable)


def flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False)


def check(table: str, name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=op.f(f"ck_{table}_{name}"))


def unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=op.f(f"uq_{table}_{'_'.join(columns)}"))


def primary(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def refers(
    table: str, columns: list[str], other: list[str], *, ondelete: str | None = None
) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{'_'.join(columns)}")
    return sa.ForeignKeyConstraint(columns, other, name=name, ondelete=ondelete)


def index(
    name: str, table: str, columns: list[str], *, where: str | None = None, unique: bool = False
) -> None:
    """Columns may be expressions; `where` makes it partial."""
    condition = sa.text(where) if where else None
    op.create_index(
        name,
        table,
        [sa.text(column) if "(" in column else column for column in columns],
        unique=unique,
        sqlite_where=condition,
        postgresql_where=condition,
    )


def create_instances() -> None:
    op.create_table(
        "instances",
        whole("id", nullable=False),
        text("kind", nullable=False),
        text("host", nullable=False),
        whole("pid", nullable=False),
        text("pid_started", nullable=False),
        text("version", nullable=False),
        moment("started_at", nullable=False),
        moment("heartbeat_at", nullable=False),
        moment("stopped_at"),
        primary("instances", "id"),
        check("instances", "kind_known", "kind IN ('daemon', 'command')"),
    )


def create_jobs() -> None:
    op.create_table(
        "jobs",
        text("name", nullable=False),
        moment("first_seen_at", nullable=False),
        text("schedule_key"),
        moment("cursor"),
        moment("paused_at"),
        text("pause_reason"),
        moment("held_until"),
        whole("consecutive_failures", nullable=False, default="0"),
        whole("runs_started", nullable=False, default="0"),
        primary("jobs", "name"),
    )


def create_runs() -> None:
    op.create_table(
        "runs",
        whole("id", nullable=False),
        text("job", nullable=False),
        moment("scheduled_for", nullable=False),
        text("trigger", nullable=False),
        whole("parent_id"),
        text("state", nullable=False),
        text("reason"),
        moment("span_first"),
        whole("span_count", nullable=False, default="1"),
        whole("tries", nullable=False, default="0"),
        moment("not_before"),
        whole("instance_id"),
        *texts("requested_provider", "requested_model"),
        *texts("served_provider", "served_model", "served_credential"),
        flag("fallback"),
        *texts("fallback_reason", "error_class", "error_message"),
        sa.Column("vars", sa.JSON(), nullable=True),
        text("prompt"),
        text("output"),
        flag("truncated"),
        whole("compressed_from"),
        whole("compressed_to"),
        text("title"),
        whole("input_tokens"),
        whole("output_tokens"),
        moment("created_at", nullable=False),
        moment("started_at"),
        moment("finished_at"),
        primary("runs", "id"),
        refers("runs", ["parent_id"], ["runs.id"], ondelete="SET NULL"),
        refers("runs", ["instance_id"], ["instances.id"]),
        *checks_of_runs(),
        sqlite_autoincrement=True,
    )
    index("uq_runs_instant", "runs", ["job", "scheduled_for"], where=SCHEDULED, unique=True)
    index("uq_runs_after", "runs", ["job", "parent_id"], where=AFTER, unique=True)
    index("ix_runs_job_id", "runs", ["job", "id"])
    index("ix_runs_open", "runs", ["state"], where=OPEN)


def checks_of_runs() -> tuple[sa.CheckConstraint, ...]:
    answer = "served_provider IS NOT NULL AND output IS NOT NULL AND length(output) > 0"
    triggers = "'schedule', 'catch_up', 'after', 'retry', 'manual', 'ask', 'drill'"
    rules = {
        "state_known": f"state IN ('queued', 'running', {FINAL_STATES})",
        "trigger_known": f"trigger IN ({triggers})",
        "error_class_known": f"error_class IS NULL OR error_class IN ({CLASSES})",
        "fallback_reason_known": f"fallback_reason IS NULL OR fallback_reason IN ({CLASSES})",
        "final_is_finished": f"(state IN ({FINAL_STATES})) = (finished_at IS NOT NULL)",
        "running_is_started": "state <> 'running' OR (started_at IS NOT NULL AND tries > 0)",
        "succeeded_has_answer": f"state <> 'succeeded' OR ({answer})",
        "span_is_whole": "(span_count = 1) = (span_first IS NULL)",
        "span_never_ran": "span_count = 1 OR state IN ('missed', 'skipped')",
    }
    return tuple(check("runs", name, rule) for name, rule in rules.items())


def create_credentials() -> None:
    op.create_table(
        "credentials",
        *texts("provider", "label", "kind", "source", "quota_group", nullable=False),
        text("fingerprint"),
        moment("reset_at"),
        moment("created_at", nullable=False),
        primary("credentials", "provider", "label"),
        check("credentials", "kind_known", "kind IN ('key', 'oauth', 'none')"),
    )


def create_attempts() -> None:
    op.create_table(
        "attempts",
        whole("id", nullable=False),
        whole("run_id"),
        whole("try", nullable=False),
        whole("ordinal", nullable=False),
        text("purpose", nullable=False),
        whole("target_index", nullable=False),
        *texts("provider", "model", "base_url", nullable=False),
        *texts("credential", "quota_group"),
        text("outcome", nullable=False),
        text("error_class"),
        whole("http_status"),
        *texts("code", "rule", "message"),
        sa.Column("retry_after", sa.Float(), nullable=True),
        sa.Column("waited", sa.Float(), server_default="0", nullable=False),
        text("wait_reason"),
        text("recovery"),
        text("request_id"),
        moment("started_at", nullable=False),
        sa.Column("latency", sa.Float(), nullable=True),
        whole("input_tokens"),
        whole("output_tokens"),
        primary("attempts", "id"),
        refers("attempts", ["run_id"], ["runs.id"], ondelete="SET NULL"),
        refers("attempts", ["provider", "credential"], ["credentials.provider", "credentials.label"]),
        unique("attempts", "run_id", "ordinal"),
        unique("attempts", "id", "provider", "credential"),
        unique("attempts", "id", "provider", "quota_group"),
        unique("attempts", "id", "provider", "base_url"),
        unique("attempts", "id", "provider", "model"),
        *checks_of_attempts(),
        sqlite_autoincrement=True,
    )
    index("ix_attempts_credential", "attempts", ["provider", "credential", "id"])
    index("ix_attempts_endpoint", "attempts", ["provider", "base_url", "id"])


def checks_of_attempts() -> tuple[sa.CheckConstraint, ...]:
    purposes = "'main', 'compression', 'title', 'repair', 'refresh', 'check', 'probe'"
    outcomes = "'sent', 'succeeded', 'failed', 'unknown', 'passed_over'"
    steps = "'retry', 'refresh', 'next_credential', 'next_target', 'compress', 'hold', 'stop'"
    rules = {
        "purpose_known": f"purpose IN ({purposes})",
        "outcome_known": f"outcome IN ({outcomes})",
        "error_class_known": f"error_class IS NULL OR error_class IN ({CLASSES})",
        "recovery_known": f"recovery IS NULL OR recovery IN ({steps})",
        "failed_has_class": "outcome <> 'failed' OR error_class IS NOT NULL",
        "succeeded_has_none": "outcome <> 'succeeded' OR error_class IS NULL",
        "request_has_credential": "outcome = 'passed_over' OR credential IS NOT NULL",
        "group_goes_with_credential": "(credential IS NULL) = (quota_group IS NULL)",
        "message_is_short": "message IS NULL OR length(message) <= 200",
    }
    return tuple(check("attempts", name, rule) for name, rule in rules.items())


def create_marks() -> None:
    op.create_table(
        "marks",
        whole("id", nullable=False),
        text("scope", nullable=False),
        text("provider", nullable=False),
        *texts("credential", "quota_group", "base_url", "model"),
        text("error_class", nullable=False),
        text("code"),
        moment("until"),
        text("until_source", nullable=False),
        text("fingerprint"),
        whole("step", nullable=False),
        moment("made_at", nullable=False),
        whole("attempt_id", nullable=False),
        primary("marks", "id"),
        *(earned_by("marks", column) for column in ("credential", "quota_group", "base_url", "model")),
        refers("marks", ["provider", "credential"], ["credentials.provider", "credentials.label"]),
        *checks_of_marks(),
    )
    subject = (f"coalesce({name}, '')" for name in ("credential", "quota_group", "base_url", "model"))
    index("uq_marks_subject", "marks", ["provider", "scope", *subject, "error_class"], unique=True)


def earned_by(table: str, column: str) -> sa.ForeignKeyConstraint:
    """A mark's attempt is of its provider, and of what the mark closes."""
    columns = ["provider", column]
    return refers(table, ["attempt_id", *columns], ["attempts.id", *(f"attempts.{c}" for c in columns)])


def checks_of_marks() -> tuple[sa.CheckConstraint, ...]:
    columns = ("credential", "quota_group", "base_url", "model")
    named = {
        "credential": {"credential"},
        "credential_model": {"credential", "model"},
        "group": {"quota_group"},
        "group_model": {"quota_group", "model"},
        "endpoint": {"base_url"},
        "endpoint_model": {"base_url", "model"},
    }
    fits = (
        " AND ".join([f"scope = '{scope}'", *(f"{c} IS {'NOT ' * (c in own)}NULL" for c in columns)])
        for scope, own in named.items()
    )
    scopes = ", ".join(f"'{scope}'" for scope in named)
    return (
        check("marks", "scope_known", f"scope IN ({scopes})"),
        check("marks", "error_class_known", f"error_class IN ({CLASSES})"),
        check("marks", "scope_fits", " OR ".join(f"({each})" for each in fits)),
        check("marks", "step_positive", "step > 0"),
    )


def create_tokens() -> None:
    op.create_table(
        "tokens",
        *texts("provider", "label", "login_id", nullable=False),
        whole("generation", nullable=False),
        sa.Column("access_token", sa.LargeBinary(), nullable=False),
        sa.Column("refresh_token", sa.LargeBinary(), nullable=True),
        text("client_id"),
        text("account_id"),
        moment("issued_at", nullable=False),
        moment("expires_at"),
        text("lease_owner"),
        moment("lease_until"),
        whole("spent_by"),
        primary("tokens", "provider", "label"),
        refers("tokens", ["provider", "label"], ["credentials.provider", "credentials.label"]),
        refers("tokens", ["spent_by"], ["attempts.id"]),
        check("tokens", "lease_is_whole", "(lease_owner IS NULL) = (lease_until IS NULL)"),
    )


def create_deliveries() -> None:
    op.create_table(
        "deliveries",
        whole("id", nullable=False),
        whole("run_id", nullable=False),
        *texts("target", "state", "idempotency_key", nullable=False),
        whole("attempts", nullable=False, default="0"),
        moment("next_attempt_at"),
        text("last_error"),
        moment("created_at", nullable=False),
        moment("finished_at"),
        primary("deliveries", "id"),
        unique("deliveries", "idempotency_key"),
        refers("deliveries", ["run_id"], ["runs.id"], ondelete="CASCADE"),
        check("deliveries", "state_known", "state IN ('pending', 'delivered', 'failed')"),
        check("deliveries", "final_is_finished", "(state = 'pending') = (finished_at IS NULL)"),
    )
