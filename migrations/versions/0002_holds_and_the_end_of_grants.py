"""What a hold says of its job, and when a login's grant ends."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ADDED: Mapping[str, Mapping[str, Any]] = {
    "jobs": {
        "opens_at": sa.DateTime,
        "held_by": sa.Integer,
        "hold_key": sa.Text,
        "hold_reason": sa.Text,
        "probed_at": sa.DateTime,
    },
    "marks": {"stated_until": sa.DateTime},
    "tokens": {"grant_ends_at": sa.DateTime, "grant_warned_at": sa.DateTime},
}


def upgrade() -> None:
    for table, columns in ADDED.items():
        for name, kind in columns.items():
            op.add_column(table, sa.Column(name, kind()))
    held = sa.text("hold_key IS NOT NULL")
    op.create_index("ix_jobs_held", "jobs", ["hold_key"], sqlite_where=held, postgresql_where=held)


def downgrade() -> None:
    op.drop_index("ix_jobs_held", "jobs")
    for table, columns in ADDED.items():
        for name in columns:
            op.drop_column(table, name)  # in place: a table that is built anew loses indexes on expressions
