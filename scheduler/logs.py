"""Events as log lines: in the journal, as JSON, or in words on a terminal. Secrets are taken out last."""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from dataclasses import fields
from enum import Enum
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO, get_args

import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from jobs.alert import Notice
from jobs.events import (
    AlertTold,
    AttemptOpened,
    AttributionWasRefused,
    DeliverySettled,
    Event,
    GrantEnding,
    JobPaused,
    RunClaimed,
    RunDecided,
    RunFinished,
    RunRecovered,
    WriteFailed,
)
from jobs.run import ClaimedRun, Outcome, RunState
from jobs.secret import Redactor
from jobs.text import readable
from scheduler.config.settings import LogFormat
from scheduler.journal import SOCKET, Journal, is_journal
from scheduler.log_filter import secret_filter
from scheduler.log_outputs import JournalOutput, JournalRenderer, StreamOutput

_QUIET_LIBRARIES = (
    *("openai", "httpx2", "httpcore2", "httpx", "httpcore", "aiohttp"),
    *("apscheduler", "uvicorn", "asyncio", "alembic"),
)
_WARNINGS = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.ABANDONED, RunState.MISSED})
_RUN = "run_id"


def _words(name: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()


_SAID = MappingProxyType({each: _words(each.__name__) for each in get_args(Event)})
_EVENTS = MappingProxyType({words: each.__name__ for each, words in _SAID.items()})
_FIELDS = MappingProxyType({each: tuple(one.name for one in fields(each) if one.repr) for each in _SAID})


def configure(
    level: str,
    form: LogFormat,
    redactor: Redactor,
    *,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
    color: bool | None = None,
    journal: Path = SOCKET,
) -> None:
    """Set up logging of this process: the standard library's, warnings, and what threads die of.

    Lines go to the journal where `form` says so, or where it is `auto` and standard error is joined to it;
    else to standard error. `color` is None where a terminal and `NO_COLOR` decide (no-color.org).
    """
    out = stream or sys.stderr
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]

    def formatter(renderer: Processor) -> logging.Formatter:
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                secret_filter(redactor),
                renderer,
            ],
        )

    colored = out.isatty() and not environ.get("NO_COLOR") if color is None else color and out.isatty()
    _listen(level, _output(_settled(form, out, environ), out, formatter, colored=colored, journal=journal))
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _settled(form: LogFormat, out: TextIO, environ: Mapping[str, str]) -> LogFormat:
    """Return the form that `auto` means here."""
    if form is not LogFormat.AUTO:
        return form
    if out.isatty():
        return LogFormat.CONSOLE
    return LogFormat.JOURNAL if is_journal(out, environ) else LogFormat.JSON


def _output(
    form: LogFormat,
    out: TextIO,
    formatter: Callable[[Processor], logging.Formatter],
    *,
    colored: bool,
    journal: Path,
) -> logging.Handler:
    """Return the handler of a form, which is not `auto` any more."""
    stream = StreamOutput(out, waits=form is not LogFormat.JOURNAL)
    json_lines = structlog.processors.JSONRenderer(default=str)
    stream.setFormatter(formatter(_console(colored) if form is LogFormat.CONSOLE else json_lines))
    if form is not LogFormat.JOURNAL:
        return stream
    output = JournalOutput(Journal(journal), stream)
    output.setFormatter(formatter(JournalRenderer(_EVENTS)))
    return output


def _console(colored: bool) -> Processor:
    """Return a renderer for terminals, on which no value acts: providers and programs write some of them."""
    renderer = structlog.dev.ConsoleRenderer(colors=colored)

    def rendered(logger: WrappedLogger, method: str, line: EventDict) -> str:
        shown = {name: readable(value) if isinstance(value, str) else value for name, value in line.items()}
        return renderer(logger, method, shown)

    return rendered


def _listen(level: str, output: logging.Handler) -> None:
    """Have everything that this process says of itself go to one output, through its filter."""
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(level.upper())
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.captureWarnings(True)  # warnings, and what is raised where nobody can catch it, show values too
    threading.excepthook = _say_thread_died
    sys.unraisablehook = _say_unraisable


def _say_thread_died(died: threading.ExceptHookArgs) -> None:
    error = died.exc_value
    if error is not None and not isinstance(error, SystemExit):
        name = died.thread.name if died.thread else "unknown"
        logging.getLogger("promptd").critical("the thread %s has died", name, exc_info=error)


def _say_unraisable(raised: "sys.UnraisableHookArgs") -> None:
    where = getattr(raised.object, "__qualname__", type(raised.object).__name__)
    said = "nobody could be told of an error in %s"
    logging.getLogger("promptd").error(said, where, exc_info=raised.exc_value)


@contextmanager
def lines_of(run: ClaimedRun) -> Iterator[None]:
    """Give every line of the block its run, those of libraries, of its tasks and of its threads included.

    Called where a run's task begins: the names stand in the context of that task, which others do not see,
    but for tasks that it makes. What it was made in says nothing about it.
    """
    clear_contextvars()
    bind_contextvars(job=run.job, run_id=run.id)
    try:
        yield
    finally:
        clear_contextvars()


def hear(event: Event) -> None:
    """Write an event down; what failed is a warning, a refused attribution an error.

    From an attempt's beginning on, the lines of its run name it.
    """
    if isinstance(event, AttemptOpened) and _RUN in get_contextvars():
        bind_contextvars(attempt=event.attempt_id)
    level = _level(event)
    logger = logging.getLogger("promptd")
    if not logger.isEnabledFor(level):
        return
    line = _flat(event)
    say = partial(structlog.stdlib.get_logger("promptd").log, level, _SAID[type(event)], **line)
    if _is_of_another(line):
        Context().run(say)
    else:
        say()


def _level(event: Event) -> int:
    level = logging.INFO
    match event:
        case AttributionWasRefused():
            level = logging.ERROR
        case RunClaimed() | AttemptOpened():
            level = logging.DEBUG  # `run started` and `attempt settled` follow
        case GrantEnding() | JobPaused() | RunRecovered() | WriteFailed() | DeliverySettled(outcome="failed"):
            level = logging.WARNING
        case RunFinished(outcome=outcome) if outcome.state in _WARNINGS:
            level = logging.WARNING
        case RunDecided(state=state) if state in _WARNINGS:
            level = logging.WARNING
        case AlertTold(notice=Notice.OPENED | Notice.REMINDER):
            level = logging.WARNING
    return level


def _is_of_another(line: Mapping[str, Any]) -> bool:
    """Say whether a line names another job or run than the one at whose work it is said."""
    bound = get_contextvars()
    return any(name in line and name in bound and line[name] != bound[name] for name in ("job", _RUN))


def _flat(event: Event) -> dict[str, Any]:
    """Return an event's fields; a run is told by its job and id, an outcome without its text."""
    line: dict[str, Any] = {}
    for name in _FIELDS[type(event)]:
        value = getattr(event, name)
        match value:
            case None:
                continue
            case ClaimedRun():
                line |= {"job": value.job, "run_id": value.id, "try": value.tries}
                line["scheduled_for"] = value.scheduled_for.isoformat()
            case Outcome():
                line |= {"state": str(value.state), "reason": value.reason, "message": value.message}
                line["served"] = f"{value.served.provider}/{value.served.model}" if value.served else None
            case Enum():
                line[name] = str(value.value)
            case _:
                line["attempt" if name == "attempt_id" else name] = value
    return {name: value for name, value in line.items() if value is not None}
