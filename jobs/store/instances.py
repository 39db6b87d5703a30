"""Which processes work on this database: host, process id and that process's start time."""

import os
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, insert, select, update

from jobs.store.tables import instances

HEARTBEAT_EVERY = timedelta(seconds=5)
GONE_AFTER = timedelta(seconds=60)
MOST_LOOKED_FOR = 1_000
_ENDED = ("Z", "X", "x")


def process_start(pid: int) -> str:
    """Return what the kernel says of when a process began, "" for one that is not there.

    Clock ticks since boot (proc(5), field 22 of `stat`) with the boot id: together they tell a process
    from a later one with the same id. One that has ended and is not waited for yet (a zombie) works no more.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in _ENDED else f"{boot}:{fields[18]}"


def register(connection: Connection, *, kind: str, version: str, now: datetime) -> int:
    """Insert this process and return its instance id."""
    row = {
        "kind": kind,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "pid_started": process_start(os.getpid()),
        "version": version,
        "started_at": now,
        "heartbeat_at": now,
    }
    return int(connection.execute(insert(instances).values(row).returning(instances.c.id)).scalar_one())


def beat(connection: Connection, instance_id: int, *, now: datetime) -> None:
    """Say that this process still works."""
    connection.execute(update(instances).where(instances.c.id == instance_id).values(heartbeat_at=now))


def stop(connection: Connection, instance_id: int, *, now: datetime) -> None:
    """Say that this process has ended its work."""
    connection.execute(
        update(instances).where(instances.c.id == instance_id).values(heartbeat_at=now, stopped_at=now)
    )


def is_gone(row: RowMapping, *, now: datetime) -> bool:
    """Say whether the instance of `row` no longer works.

    It has stopped; or it is of this host and its process is not there; or it is of another host and has
    been silent for a minute.
    """
    if row["stopped_at"] is not None:
        return True
    if row["host"] == socket.gethostname():
        return bool(process_start(row["pid"]) != row["pid_started"])
    return bool(now - row["heartbeat_at"] > GONE_AFTER)


def killed(connection: Connection, *, silent_since: datetime, now: datetime) -> list[int]:
    """Return instances of this host whose processes have gone without saying so, the oldest first.

    A thousand at most. Of other hosts' nobody here can be sure: one may have been suspended.
    """
    quiet = (
        select(instances)
        .where(
            instances.c.stopped_at.is_(None),
            instances.c.host == socket.gethostname(),
            instances.c.heartbeat_at < silent_since,
        )
        .order_by(instances.c.id)
        .limit(MOST_LOOKED_FOR)
    )
    return [row["id"] for row in connection.execute(quiet).mappings() if is_gone(row, now=now)]


def is_only_daemon(connection: Connection, instance_id: int, *, now: datetime) -> bool:
    """Say whether no daemon but this one works on this database."""
    others = _others(instance_id).where(instances.c.kind == "daemon")
    return all(is_gone(row, now=now) for row in connection.execute(others).mappings())


def is_alone(connection: Connection, instance_id: int, *, now: datetime) -> bool:
    """Say whether no process but this one works on this database: no other daemon, and no run by hand."""
    return all(is_gone(row, now=now) for row in connection.execute(_others(instance_id)).mappings())


def _others(instance_id: int) -> Select[Any]:
    return select(instances).where(instances.c.stopped_at.is_(None), instances.c.id != instance_id)


def daemon(connection: Connection) -> tuple[int, datetime, datetime] | None:
    """Return (process id, started at, last heartbeat) of the newest daemon that has not stopped."""
    row = connection.execute(
        select(instances.c.pid, instances.c.started_at, instances.c.heartbeat_at, instances.c.pid_started)
        .where(instances.c.kind == "daemon", instances.c.stopped_at.is_(None))
        .order_by(instances.c.id.desc())
        .limit(1)
    ).one_or_none()
    if row is None or process_start(row.pid) != row.pid_started:
        return None
    return row.pid, row.started_at, row.heartbeat_at
