"""Alembic migrations; inside the wheel too, so that an installed promptd brings its database up to date."""
