"""Databases of every revision: brought up one step at a time, past the program's own verbs."""

from importlib import resources

from alembic import command
from alembic.config import Config

from jobs.store.engine import open_engine


def step_up(url: str, revision: str) -> None:
    """Bring a database up to a revision, and no further."""
    config = Config()
    config.set_main_option("script_location", str(resources.files("migrations")))
    config.set_main_option("path_separator", "os")
    engine = open_engine(url, writes=True)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        engine.dispose()
