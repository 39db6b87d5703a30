"""PostgreSQL as it must be used: one writer at a time, no wait without an end, and the fate of a commit."""

from collections.abc import Generator
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from jobs import clock
from jobs.errors import Unavailable

LOCK_TIMEOUT_MS = 10_000
STATEMENT_TIMEOUT_MS = 25_000
IDLE_TIMEOUT_MS = 30_000
SILENT_FOR = 30.0
"""Seconds after which a server that says nothing to a statement is given up: it should have ended that.

One that is stopped, or waits for its disk, keeps its connections up all the same, and its own limits do not
count. With the time for a new connection this is below half of the unit's WatchdogSec.
"""
_WRITERS = int.from_bytes(b"promptd")  # any number will do that nothing else in this database locks
_TRANSACTION = "promptd_transaction"
_BEGIN = text("SELECT CAST(pg_current_xact_id() AS text) FROM pg_advisory_xact_lock(:writers)")
_FATE = text("SELECT pg_xact_status(CAST(:name AS xid8))")

# What libpq is told unless the URL says otherwise (PostgreSQL manual, "Parameter Key Words"): a server that
# is gone without a word is noticed within half a minute.
_MANNERS = {
    "application_name": "promptd",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

# SQLSTATE codes and classes (PostgreSQL manual, appendix A) whose cause may pass.
_KINDS = {
    "25006": "readonly",
    "25P03": "unreachable",
    "53300": "unreachable",
    "55P03": "locked",
    "57014": "locked",
}
_KINDS_OF_CLASS = {"08": "unreachable", "40": "locked", "53": "full", "57": "unreachable", "58": "io"}


def open_server(url: URL, *, writes: bool, connections: int) -> Engine:
    """Return an engine whose writing transactions come one after the other, in all processes together.

    Each begins by taking one advisory lock, as BEGIN IMMEDIATE takes SQLite's: what a verb has read stands
    until it has written. The level must be READ COMMITTED: a snapshot older than the lock would miss what the
    writer before has committed. A reading transaction sees one snapshot, and can write nothing. Raises
    Unavailable when the driver is not installed.
    """
    manners = {name: value for name, value in _MANNERS.items() if name not in url.query}
    try:
        engine = create_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
            use_native_hstore=False,
            isolation_level="READ COMMITTED" if writes else "REPEATABLE READ",
            connect_args=manners,
        )
    except ImportError as exc:
        raise Unavailable(
            "the database is on PostgreSQL, and its driver cannot be loaded; "
            "install it with `pip install 'promptd[postgres]'`"
        ) from exc
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "connect", _prepare if writes else _prepare_reading)
    if writes:
        event.listen(engine, "begin", _begin)
    return engine


def _connect(_dialect: Any, _entry: ConnectionPoolEntry, arguments: Any, named: Any) -> Any:
    return _impatient().connect(*arguments, **named)


@cache
def _impatient() -> Any:
    """Return the driver's class of connections, but that they do not wait for a silent server for ever."""
    import psycopg  # noqa: PLC0415 - it is an extra

    class Impatient(psycopg.Connection[Any]):
        """`silent_for` None: it waits for as long as the server takes."""

        silent_for: float | None = SILENT_FOR

        def wait(self, gen: Any, *args: Any, **named: Any) -> Any:
            return super().wait(self._heard(gen), *args, **named)

        def _heard(self, gen: Any) -> Generator[Any, Any, Any]:
            """Pass on what is waited for, and whether it came; close the connection when it does not."""
            heard_at, ready = clock.monotonic(), None
            while True:
                try:
                    ready = yield gen.send(ready)
                except StopIteration as done:
                    return done.value
                if ready:
                    heard_at = clock.monotonic()
                elif self.silent_for is not None and clock.monotonic() - heard_at >= self.silent_for:
                    self.close()
                    raise psycopg.OperationalError(f"the server has said nothing for {self.silent_for:g} s")

    return Impatient


def _prepare(connection: Any, _entry: ConnectionPoolEntry) -> None:
    from psycopg.types.string import StrDumperUnknown  # noqa: PLC0415 - it is an extra

    class WithoutNul(StrDumperUnknown):
        """PostgreSQL's text holds every character but NUL; SQLite's holds that too."""

        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "�"))

    connection.adapters.register_dumper(str, WithoutNul)
    connection.autocommit = True
    connection.execute(
        f"SET lock_timeout = {LOCK_TIMEOUT_MS}; SET statement_timeout = {STATEMENT_TIMEOUT_MS};"
        f" SET idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}"
    )
    connection.autocommit = False


def _prepare_reading(connection: Any, entry: ConnectionPoolEntry) -> None:
    _prepare(connection, entry)
    connection.read_only = True


def _begin(connection: Connection) -> None:
    connection.info[_TRANSACTION] = connection.execute(_BEGIN, {"writers": _WRITERS}).scalar_one()


def without_limit(connection: Connection) -> None:
    """Let the statements of this connection take as long as they take: tables may be large."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        driver: Any = connection.connection.driver_connection
        driver.silent_for = None


def transaction_of(connection: Connection) -> str | None:
    """Return the server's name for this writing transaction, None on SQLite, where none is needed."""
    name: str | None = connection.info.get(_TRANSACTION)
    return name


def has_committed(connection: Connection, transaction: str) -> bool:
    """Say whether an earlier writing transaction was committed; the writers' lock says that it has ended.

    False also for one that this server no longer knows, or does not know yet, as after a failover.
    """
    try:
        return bool(connection.execute(_FATE, {"name": transaction}).scalar_one() == "committed")
    except DBAPIError as exc:
        if kind_of(exc) == "other":  # "transaction ID … is in the future"
            return False
        raise


def kind_of(error: DBAPIError) -> str:
    """Say what kind of trouble a server's error is: see `jobs.store.engine.kind_of`."""
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or (state is None and isinstance(error, OperationalError)):
        return "unreachable"
    if state is None:
        return "other"
    return _KINDS.get(state) or _KINDS_OF_CLASS.get(state[:2], "other")
