"""Where log lines go: a stream, or the journal with that stream behind it. Whatever fails, no line raises."""

import json
import logging
import re
import select
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TextIO

from structlog.typing import EventDict, WrappedLogger

from scheduler.journal import Journal, serialised

_PLAIN = re.compile(r"[^\s\"=]+")
IDENTIFIER = "promptd"
_PRIORITIES = MappingProxyType({"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7})  # syslog(3)
FIELDS = MappingProxyType(
    {
        "job": "PROMPTD_JOB",
        "run_id": "PROMPTD_RUN_ID",
        "attempt": "PROMPTD_ATTEMPT",
        "provider": "PROMPTD_PROVIDER",
        "credential": "PROMPTD_CREDENTIAL",
        "model": "PROMPTD_MODEL",
        "target": "PROMPTD_TARGET",
        "state": "PROMPTD_STATE",
        "reason": "PROMPTD_REASON",
        "error_class": "PROMPTD_ERROR_CLASS",
        "logger": "LOGGER",
    }
)
"""What of a line has a field of its own; the rest stands in MESSAGE."""
_BLOCKS = ("stack_info", "stack", "exception")  # of several lines
_NOT_IN_MESSAGE = ("event", "level", "logger", "timestamp", *_BLOCKS)


class StreamOutput(logging.StreamHandler[TextIO]):
    """Writes lines to a stream. With `waits` false one that it cannot take at once is lost, and counted."""

    def __init__(self, stream: TextIO, *, waits: bool = True) -> None:
        super().__init__(stream)
        self._waits, self._lost = waits, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and before it how many were lost."""
        if not self._waits and not _takes(self.stream):
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self.emit(_said(f"{lost} log lines were lost: neither the journal nor standard error took them"))
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say that a line failed, without its words: they have not passed the filter."""
        say_failed(self.stream, record)


class JournalOutput(logging.Handler):
    """Hands lines to the journal, as entries; what it does not take is written to a stream."""

    def __init__(self, journal: Journal, behind: StreamOutput) -> None:
        super().__init__()
        self._journal, self._behind = journal, behind

    def emit(self, record: logging.LogRecord) -> None:
        """Send an entry."""
        try:
            entry = self.format(record).encode("latin-1")
        except Exception:  # as in `logging`: a line that cannot be made ends nobody's work
            self.handleError(record)
            return
        if not self._journal.send(entry):
            self._behind.handle(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say that a line failed, without its words."""
        say_failed(self._behind.stream, record)

    def close(self) -> None:
        """Let go of the socket."""
        self._journal.close()
        super().close()


class JournalRenderer:
    """Renders a line as the datagram that the journal takes, a character of latin-1 for each of its bytes.

    `logging` carries texts, and an entry is none. `events` says which words are an event, and its name.
    """

    def __init__(self, events: Mapping[str, str]) -> None:
        self._events = events

    def __call__(self, _logger: WrappedLogger, _method: str, line: EventDict) -> str:
        """Asked by structlog."""
        fields = {
            "MESSAGE": message_of(line),
            "PRIORITY": str(_PRIORITIES.get(str(line.get("level")), 6)),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
        }
        fields |= {FIELDS[name]: _text(value) for name, value in line.items() if name in FIELDS}
        if (event := self._events.get(str(line.get("event")))) is not None:
            fields["PROMPTD_EVENT"] = event
        return serialised(fields).decode("latin-1")


def message_of(line: EventDict) -> str:
    """Return a line in words: what happened, then its values, then a traceback."""
    values = [f"{name}={_quoted(value)}" for name, value in line.items() if name not in _NOT_IN_MESSAGE]
    words = " ".join([str(line.get("event", "")), *values])
    return "\n".join([words, *(_text(line[name]) for name in _BLOCKS if line.get(name))])


def say_failed(stream: TextIO, record: logging.LogRecord) -> None:
    """Say which line could not be written, and why, by names only."""
    error = sys.exc_info()[0]
    why = error.__name__ if error else "unknown"
    try:
        stream.write(f"a log line of {record.name} ({record.filename}:{record.lineno}) was lost: {why}\n")
        stream.flush()
    except (OSError, ValueError):  # nobody reads it any more
        pass


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _quoted(value: Any) -> str:
    """Return a value as one word: a text with blanks, quotes or line ends in it is written as JSON."""
    plain = isinstance(value, str) and _PLAIN.fullmatch(value)
    return value if plain else json.dumps(value, ensure_ascii=False, default=str)


def _takes(stream: TextIO) -> bool:
    """Say whether a stream takes a line at once; a file that is none of the system's does."""
    try:
        waiting = select.poll()
        waiting.register(stream.fileno(), select.POLLOUT)
        return any(told & select.POLLOUT for _file, told in waiting.poll(0))
    except ValueError:
        return True


def _said(words: str) -> logging.LogRecord:
    return logging.LogRecord(IDENTIFIER, logging.WARNING, __file__, 0, words, (), None)
