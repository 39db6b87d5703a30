"""The database as it stands: reachable, of this revision, sound, with room left, on a disk fit for it."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from jobs.store import revision, shape, soundness
from jobs.store.engine import LONGEST_LOG, open_engine, sqlite_path
from scheduler.doctor.finding import Finding

LARGEST_CHECKED = 500_000_000
LEAST_ROOM = 50_000_000
AMPLE_ROOM = 500_000_000
NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "vboxsf"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone"}
)
_ESCAPED = re.compile(r"\\([0-7]{3})")
PASSING = frozenset({"tmpfs", "ramfs"})


@contextmanager
def looking(url: str) -> Iterator[Connection]:
    """Give a connection that can write nothing; raises what the driver does."""
    path = sqlite_path(url)
    if path is None:
        engine = open_engine(url, writes=False)
    else:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        engine = create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=5), poolclass=NullPool
        )
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def database(connection: Connection) -> Iterator[Finding]:
    """Judge the tables' revision, and what the database says of its own soundness."""
    found = revision.revision_of(connection)
    lost = shape.missing_from(connection, found)
    if lost.anything:
        for seen, mend in (each.split(": ", 1) for each in lost.faults()):
            yield Finding.fault("database", seen, mend)
    elif found == revision.REVISION:
        yield Finding.ok("database", f"it can be reached, and is at revision {found}")
    elif found is not None and found > revision.REVISION:
        yield Finding.fault("database", f"it is at revision {found}", revision.newer(found))
    else:
        mend = "run `promptd db upgrade`, or start the daemon"
        yield Finding.fault("database", f"it is at revision {found or 'none'}, not {revision.REVISION}", mend)


def integrity(connection: Connection, path: Path) -> Finding:
    """Judge whether a SQLite file holds together; a large one is left to `promptd db check`."""
    size = path.stat().st_size
    if size > LARGEST_CHECKED:
        return Finding.unknown(
            "integrity", f"{size / 1_000_000:.0f} MB are too many to look at; `promptd db check`"
        )
    said = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
    if said == "ok":
        return Finding.ok("integrity", f"{size / 1_000_000:.1f} MB hold together")
    return Finding.fault("integrity", str(said), "stop the daemon and `promptd db restore` a backup")


def log(path: Path) -> Finding:
    """Judge the length of SQLite's write-ahead log."""
    size = soundness.log_size(path)
    seen = f"{size / 1_000_000:.1f} MB"
    if size <= 4 * LONGEST_LOG:
        return Finding.ok("write-ahead log", seen)
    mend = f"something reads the database for very long: see `fuser -v {path}`"
    return Finding.warning("write-ahead log", seen, mend)


def room(path: Path) -> Iterator[Finding]:
    """Judge how much the disk of a file still takes; an upgrade wants room for a backup."""
    facts = os.statvfs(path if path.exists() else path.parent)
    free = facts.f_bavail * facts.f_frsize
    size = path.stat().st_size if path.exists() else 0
    seen = f"{free / 1_000_000:.0f} MB are free at {path.parent}"
    if facts.f_flag & os.ST_RDONLY:
        yield Finding.fault("disk", f"{path.parent} is read-only", "mount it so that it can be written to")
    elif free < LEAST_ROOM or (facts.f_files and not facts.f_favail):
        yield Finding.fault(
            "disk", seen, "make room: without it runs cannot be recorded, and none is started"
        )
    elif free < AMPLE_ROOM + 2 * size:
        yield Finding.warning(
            "disk", seen, "make room: an upgrade wants as much as the database for its backup"
        )
    else:
        yield Finding.ok("disk", seen)


def file_system(path: Path, mounts: str) -> Finding:
    """Judge the file system under a SQLite file, by the text of /proc/self/mountinfo (proc(5))."""
    kind = kind_of(path, mounts)
    if kind is None:
        return Finding.unknown("file system", "the kernel does not say what it is")
    if kind in NETWORK:
        return Finding.fault(
            "file system",
            f"{path} lies on {kind}: the write-ahead log does not work over a network (sqlite.org/wal.html)",
            "put the database on a local disk, or use PostgreSQL",
        )
    if kind in PASSING:
        mend = "put it on a disk, unless it may be gone after a reboot"
        return Finding.warning("file system", f"{path} lies in memory ({kind})", mend)
    if kind == "overlay":
        mend = "keep state_dir on a volume, unless it may be gone with the container"
        return Finding.warning("file system", f"{path} lies in a container's own layer ({kind})", mend)
    return Finding.ok("file system", kind)


def kind_of(path: Path, mounts: str) -> str | None:
    """Return the type of the file system that a path lies on, None where no mount is known."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[4]))
        if (point == path or point in path.parents) and (found is None or len(point.parts) >= found[0]):
            found = len(point.parts), after.split()[0]
    return found[1] if found else None


def server(connection: Connection) -> Finding:
    """Say which PostgreSQL server it is."""
    version = connection.execute(text("SHOW server_version")).scalar_one()
    return Finding.ok("server", f"PostgreSQL {version}; it is backed up with pg_dump")
