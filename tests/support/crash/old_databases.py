"""A round of its own: the migration of an earlier database is killed, and a daemon is started on it then."""

import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.store.revision import REVISION
from support.crash.memory import faults_of, opened
from support.crash.stage import PATIENCE, Stage
from support.crash.world import World

OLD_DATABASES = Path(__file__).parents[2] / "fixtures" / "databases"
_SCHEMA = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"


@dataclass(frozen=True, slots=True)
class Content:
    """A database: its revision, what it declares, and its rows by table."""

    revision: str
    schema: list[tuple[Any, ...]]
    rows: dict[str, list[dict[str, Any]]]


def migration(stage: Stage, name: str) -> None:
    """Kill a migration before one of its steps: either revision is whole, and a daemon starts on it."""
    dump = stage.random.choice([each for each in sorted(OLD_DATABASES.glob("*.sql")) if each.stem < REVISION])
    old = _stage_of_its_own(stage)
    path = old.world.database
    before = _filled(path, dump)
    measured = old.command("db", "upgrade")
    if measured.steps is None or measured.code != 0:
        stage.complain(f"the database {dump.name} is not migrated: {measured.said}")
        return
    after = _content(path)
    _filled(path, dump)
    cut = old.command("db", "upgrade", last=stage.random.randint(1, measured.steps))
    stage.note(name, reached=cut.code == -signal.SIGKILL)
    stage.complain(*_not_whole(path, before, after), *_not_backed_up(path, before))
    with old.daemon() as victim:
        if not victim.ears.hear("READY=1", time.monotonic() + PATIENCE):
            stage.complain(f"no daemon starts on {dump.name} after its migration was killed")
    stage.complain(*_lost(_content(path), before), *faults_of(path), *old.wrong)


def _stage_of_its_own(stage: Stage) -> Stage:
    directory = stage.world.directory / "old"
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "state").mkdir(parents=True)
    world = World(directory, stage.world.origin, stage.world.hook)
    world.configure(jobs={})
    return replace(stage, world=world, at="the migrated database", wrong=[], told=set())


def _filled(path: Path, dump: Path) -> Content:
    """Make the database anew, with nothing beside it; return what is in it."""
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    path.touch(0o600)
    with opened(path) as connection:
        connection.executescript(dump.read_text("utf-8"))
        connection.commit()
    return _content(path)


def _content(path: Path) -> Content:
    with opened(path) as connection:
        schema = [tuple(row) for row in connection.execute(_SCHEMA)]
        tables = [name for kind, name, _ in schema if kind == "table"]
        rows = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in tables}
    (version,) = rows.pop("alembic_version", [{"version_num": ""}])
    return Content(version["version_num"], schema, rows)


def _not_whole(path: Path, before: Content, after: Content) -> Iterator[str]:
    """Say what is neither as it was, nor as the migration makes it."""
    found = _content(path)
    yield from faults_of(path)
    wanted = before if found.revision == before.revision else after
    if found != wanted:
        yield f"a killed migration from {before.revision} has left half of {found.revision or 'nothing'}"


def _not_backed_up(path: Path, before: Content) -> Iterator[str]:
    """Say which of the backups is not what the database was; a killed one has no such name yet."""
    for backup in path.parent.glob("*.bak"):
        yield from faults_of(backup)
        if _content(backup) != before:
            yield f"a killed migration from {before.revision} has left a backup that is none"


def _lost(found: Content, before: Content) -> Iterator[str]:
    """Say where the daemon that started has fewer rows than there were."""
    if found.revision != REVISION:
        yield f"a daemon has started on revision {found.revision}"
    for table, rows in before.rows.items():
        left = len(found.rows.get(table, ()))
        if left < len(rows):
            yield f"{table} had {len(rows)} rows before its migration, and has {left}"
