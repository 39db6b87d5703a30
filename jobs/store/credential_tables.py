"""The tables of credentials: their attempts, marks and tokens."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from jobs.attempt import AttemptOutcome, Purpose, Step
from jobs.credential import CredentialKind
from jobs.errors import ErrorClass
from jobs.mark import Scope
from jobs.store.columns import UtcDateTime, metadata, one_of

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
    one_of("kind", CredentialKind),
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
    one_of("purpose", Purpose),
    one_of("outcome", AttemptOutcome),
    one_of("error_class", ErrorClass, nullable=True),
    one_of("recovery", Step, nullable=True),
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
    one_of("scope", Scope),
    one_of("error_class", ErrorClass),
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
