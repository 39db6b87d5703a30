"""What a database of this program has to have: tables, columns, indexes; and what of it is missing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Index, text
from sqlalchemy.exc import IntegrityError

from jobs.errors import ConfigError, Fault
from jobs.store.revision import REVISION
from jobs.store.tables import metadata

Rows = Callable[[str], Iterable[Sequence[Any]]]

_RESTORE = "put a backup in its place with `promptd db restore`"
_RESTORE_SERVER = "restore a backup of it with the server's own tools"
_MAKE = "run `promptd db upgrade`"
_SINCE = {"schedule_periods": "0003", "alerts": "0004"}
"""The revisions that tables came with; all others are of the first one."""

_COLUMNS = {
    "sqlite": "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c"
    " WHERE m.type = 'table' AND m.rootpage > 0",
    "postgresql": "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
    " WHERE c.relkind IN ('r', 'p') AND c.relnamespace <> 'pg_catalog'::regnamespace"
    " AND pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped",
}
_INDEXES = {
    "sqlite": 'SELECT m.name, i.name, i."unique" FROM sqlite_master m JOIN pragma_index_list(m.name) i'
    " WHERE m.type = 'table' AND m.rootpage > 0",
    "postgresql": "SELECT t.relname, c.relname, i.indisunique FROM pg_index i"
    " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid"
    " WHERE c.relnamespace <> 'pg_catalog'::regnamespace AND pg_table_is_visible(t.oid)",
}


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not there: tables, `table.column`s of the others, and indexes of these, each by name."""

    tables: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    server: bool = False

    @property
    def anything(self) -> bool:
        """Whether something is missing."""
        return bool(self.tables or self.columns or self.indexes)

    def faults(self) -> Iterator[str]:
        """Yield what is missing in words, each with what mends it."""
        restore = _RESTORE_SERVER if self.server else _RESTORE
        for name in self.tables:
            yield f"the table {name} is missing: {restore}"
        for name in self.columns:
            yield f"the column {name} is missing: {restore}"
        for name in self.indexes:
            yield f"the index {name} is missing: {_MAKE}"

    def require_rows(self, path: Path) -> None:
        """Raise ConfigError while a table or a column is missing: no command can make up what was in it."""
        words = [*(f"the table {name}" for name in self.tables), *self._columns()]
        if words:
            restore = _RESTORE_SERVER if self.server else _RESTORE
            raise ConfigError([Fault(path, 0, 0, "", f"lacks {', '.join(words)}", restore)])

    def _columns(self) -> Iterator[str]:
        return (f"the column {name}" for name in self.columns)


def missing(rows: Rows, revision: str | None, *, dialect: str = "sqlite") -> Missing:
    """Return what a database of a revision lacks; `rows` runs a query. Only this program's is known whole.

    Of an older revision only the tables are, of an empty or newer one nothing is.
    """
    if revision is None or revision > REVISION:
        return Missing()
    columns: dict[str, set[str]] = {}
    for table, column in rows(_COLUMNS[dialect]):
        columns.setdefault(table, set()).add(column)
    wanted = [table for table in metadata.sorted_tables if _SINCE.get(table.name, "") <= revision]
    lost = tuple(table.name for table in wanted if table.name not in columns)
    server = dialect != "sqlite"
    if revision != REVISION:
        return Missing(lost, server=server)
    there = {(table, name): bool(unique) for table, name, unique in rows(_INDEXES[dialect])}
    kept = [table for table in wanted if table.name in columns]
    return Missing(
        lost,
        tuple(
            f"{table.name}.{each.name}"
            for table in kept
            for each in table.c
            if each.name not in columns[table.name]
        ),
        tuple(
            name
            for name, index in _wanted_indexes()
            if not _is_there(index, there) and _table(index) in columns
        ),
        server=server,
    )


def missing_from(connection: Connection, revision: str | None) -> Missing:
    """Return what the database of a connection lacks."""

    def rows(query: str) -> Iterable[Sequence[Any]]:
        return connection.exec_driver_sql(query)

    return missing(rows, revision, dialect=connection.dialect.name)


def require(connection: Connection) -> None:
    """Raise ConfigError unless a database of this program's revision has all that it has to have."""
    found = missing_from(connection, REVISION)
    if found.anything:
        place = place_of(connection)
        found.require_rows(place)
        raise ConfigError([Fault(place, 0, 0, "", f"lacks the index {', '.join(found.indexes)}", _MAKE)])


def place_of(connection: Connection) -> Path:
    """Return the file of a connection's database, or its name on the server."""
    return Path(connection.engine.url.database or "database")


def make_indexes(connection: Connection) -> None:
    """Make the indexes that a database of this program's revision lacks.

    Raises ConfigError where rows stand twice that an index would have kept out: trying again mends nothing.
    """
    lost = missing_from(connection, REVISION).indexes
    for name, index in _wanted_indexes():
        if name not in lost:
            continue
        connection.execute(text(f"DROP INDEX IF EXISTS {name}"))  # one of its name that is not unique
        try:
            index.create(connection)
        except IntegrityError as exc:
            said = " ".join(str(exc.orig).split())
            wrong = f"does not let the index {name} be made: {said}"
            raise ConfigError([Fault(place_of(connection), 0, 0, "", wrong, _RESTORE)]) from exc


def _wanted_indexes() -> Iterator[tuple[str, Index]]:
    for table in metadata.sorted_tables:
        yield from sorted((str(index.name), index) for index in table.indexes)


def _is_there(index: Index, there: dict[tuple[str, str], bool]) -> bool:
    unique = there.get((_table(index), str(index.name)))
    return unique is not None and (unique or not index.unique)


def _table(index: Index) -> str:
    assert index.table is not None
    return index.table.name
