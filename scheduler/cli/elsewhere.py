"""Daemons that listen elsewhere than their file says: its state_dir was edited since they began."""

import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from scheduler.control_protocol import SOCKET_NAME

_TABLE = Path("/proc/net/unix")
_BOUND = re.compile(rf" 00010000 \S+ \S+ +\d+ (/.*)/\.{re.escape(SOCKET_NAME)}\.\d+$", re.MULTILINE)
"""A listening socket (`__SO_ACCEPTCON`), by the name that it was made under: see `control_socket`."""

_MOST = 64
_CREDENTIALS = struct.Struct("3i")


def listening() -> Iterator[Path]:
    """Yield the control sockets of this machine, as the kernel lists them: `/proc/net/unix` (proc(5))."""
    try:
        table = _TABLE.read_text(errors="surrogateescape")
    except OSError:
        return
    directories = dict.fromkeys(found[1] for found in _BOUND.finditer(table))
    for directory in list(directories)[:_MOST]:
        yield Path(directory) / SOCKET_NAME


def is_trusted(connection: socket.socket) -> bool:
    """Say whether it is root or this user who listens: anybody may claim to be a configuration's daemon."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(found)
    return uid in (0, os.geteuid())
