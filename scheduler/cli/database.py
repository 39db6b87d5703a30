"""The database as a command uses it: never created by being looked at, and left as it was found."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import StaticPool

from jobs.errors import Unavailable
from jobs.store import revision
from jobs.store.engine import open_engine, sqlite_path
from jobs.store.tables import metadata


def is_there(url: str) -> bool:
    """Say whether there is a database to be opened; a server's is taken to be.

    Raises Unavailable for a file that this user may not read.
    """
    path = sqlite_path(url)
    if path is None:
        return True
    try:
        found = path.exists() and path.stat().st_size > 0
        readable = not found or os.access(path, os.R_OK, effective_ids=True)
    except PermissionError:
        readable = False
    if not readable:
        raise Unavailable(f"{path} is not for this user to read; ask as root, or as the database's owner")
    return found


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    """Give a connection with one snapshot; raises Unavailable for a database of another revision.

    A database that is not there yet, or has no tables yet, is read as an empty one.
    """
    if not is_there(url):
        with _empty() as connection:
            yield connection
        return
    with _opened(open_engine(url, writes=False)) as connection:
        if revision.revision_of(connection) is not None:
            revision.require(connection)
            yield connection
            return
    with _empty() as connection:
        yield connection


@contextmanager
def writing(url: str) -> Iterator[Connection]:
    """Give a connection in one transaction; raises Unavailable where there is no database to write to."""
    if not is_there(url):
        raise Unavailable("there is no database yet; make it with `promptd db upgrade`, or `promptd start`")
    with _opened(open_engine(url, writes=True)) as connection:
        revision.require(connection)
        yield connection


@contextmanager
def _empty() -> Iterator[Connection]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with _opened(engine) as connection:
        metadata.create_all(connection)
        yield connection


@contextmanager
def _opened(engine: Engine) -> Iterator[Connection]:
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
