"""Logging set up for one test and taken down again, and a journal that keeps what it is sent."""

import array
import io
import json
import logging
import os
import socket
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from jobs.secret import Redactor
from scheduler import logs
from scheduler.config.settings import LogFormat

_FILES_OF_A_DATAGRAM = 4


@dataclass
class JournalSocket:
    """A socket where the journal's would be, that takes what it gets."""

    path: Path
    listener: socket.socket

    def entries(self) -> list[dict[str, str]]:
        """Return the entries that have come, as the journal would read them."""
        return [_decoded(each) for each in iter(self._next, None)]

    def _next(self) -> bytes | None:
        try:
            data, rights, _flags, _from = self.listener.recvmsg(
                1 << 20, socket.CMSG_LEN(4 * _FILES_OF_A_DATAGRAM)
            )
        except BlockingIOError:
            return None
        files = array.array("i")
        for _level, _kind, more in rights:
            files.frombytes(more)
        for file in files:
            size = os.fstat(file).st_size
            data += os.pread(file, size, 0)
            os.close(file)
        return data

    def go_away(self) -> None:
        """Be there no longer."""
        self.listener.close()
        self.path.unlink()


@contextmanager
def journal(directory: Path) -> Iterator[JournalSocket]:
    """Listen in a directory until the block ends."""
    path = directory / "journal.socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        yield JournalSocket(path, listener)


def _decoded(entry: bytes) -> dict[str, str]:
    """Read an entry by the documentation of the native protocol, not by the code that wrote it."""
    fields: dict[str, str] = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            entry = rest
        else:
            (size,) = struct.unpack("<Q", rest[:8])
            name, value = line, rest[8 : 8 + size]
            assert rest[8 + size : 9 + size] == b"\n"
            entry = rest[9 + size :]
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
    return fields


@contextmanager
def restored() -> Iterator[None]:
    """Give logging back as it was before the block."""
    root = logging.getLogger()
    was = (root.handlers[:], root.level, threading.excepthook, sys.unraisablehook)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            logging.captureWarnings(False)
            for handler in root.handlers:
                if handler not in was[0]:
                    handler.close()
            root.handlers[:], threading.excepthook, sys.unraisablehook = was[0], was[2], was[3]
            root.setLevel(was[1])
            structlog.reset_defaults()
            structlog.contextvars.clear_contextvars()


@dataclass
class Book:
    """What was logged, as JSON lines."""

    stream: io.StringIO

    def lines(self) -> list[dict[str, Any]]:
        """Return every line."""
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def line(self, event: str) -> dict[str, Any]:
        """Return the one line that says this."""
        (found,) = (line for line in self.lines() if line["event"] == event)
        return found


@contextmanager
def logbook(redactor: Redactor | None = None, *, level: str = "debug") -> Iterator[Book]:
    """Log as JSON into memory until the block ends."""
    book = Book(io.StringIO())
    with restored():
        logs.configure(level, LogFormat.JSON, redactor or Redactor(), stream=book.stream)
        yield book
