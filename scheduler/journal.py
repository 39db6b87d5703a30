"""Entries for systemd's journal by its native protocol, datagrams: systemd.io/JOURNAL_NATIVE_PROTOCOL.

A socket and thirty lines: the well-kept library for it, python-systemd, is an extension in C.
"""

import array
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

SOCKET = Path("/run/systemd/journal/socket")
_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)  # what sd_journal_sendv(3) takes for it
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Say whether a stream is the one that systemd has joined to its journal.

    `JOURNAL_STREAM` names its device and inode (systemd.exec(5)): a variable that was inherited by a process
    whose standard error goes elsewhere is another stream's.
    """
    told = environ.get("JOURNAL_STREAM")
    if told is None:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file
        return False
    return told == f"{status.st_dev}:{status.st_ino}"


def serialised(fields: Mapping[str, str]) -> bytes:
    """Return an entry as the journal reads it: a value of one line after `=`, any other after its length."""
    parts: list[bytes] = []
    for name, text in fields.items():
        key, value = name.encode("ascii"), text.encode("utf-8", "backslashreplace")
        if b"\n" in value:
            parts += (key, b"\n", struct.pack("<Q", len(value)), value, b"\n")
        else:
            parts += (key, b"=", value, b"\n")
    return b"".join(parts)


class Journal:
    """The way to the journal's socket. Nothing here waits, and nothing raises."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, entry: bytes) -> bool:
        """Hand an entry over; say whether it was taken. One too large for a datagram goes as a file."""
        try:
            self._socket.sendto(entry, self._path)
        except OSError as exc:
            return exc.errno in _TOO_LARGE and self._send_file(entry)
        return True

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _send_file(self, entry: bytes) -> bool:
        try:
            file = os.memfd_create("promptd-log", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        except OSError:
            return False
        try:
            with os.fdopen(file, "wb", closefd=False) as whole:
                whole.write(entry)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))
            self._socket.sendmsg([b""], [rights], 0, self._path)
        except OSError:
            return False
        finally:
            os.close(file)
        return True
