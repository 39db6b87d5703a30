"""Events as log lines: JSON, or words on a terminal. Secrets are taken out last, whatever came before."""

import logging
import sys
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from jobs.events import (
    AttributionWasRefused,
    Event,
    GrantEnding,
    JobPaused,
    RunClaimed,
    RunDecided,
    RunFinished,
    RunRecovered,
)
from jobs.run import ClaimedRun, Outcome, RunState
from jobs.secret import Redactor
from scheduler.config.settings import LogFormat

_QUIET_LIBRARIES = ("openai", "httpx2", "httpx", "aiohttp", "apscheduler", "uvicorn", "asyncio", "alembic")
_WARNINGS = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.ABANDONED, RunState.MISSED})


def configure(level: str, form: LogFormat, redactor: Redactor, *, stream: TextIO | None = None) -> None:
    """Set up logging of this process, standard library included. Lines go to standard error."""
    out = stream or sys.stderr
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _secret_filter(redactor),
                _renderer(form, out),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def hear(event: Event) -> None:
    """Write an event down; what failed is a warning, a refused attribution an error."""
    logger = structlog.stdlib.get_logger("promptd")
    say: Callable[..., Any] = logger.info
    match event:
        case AttributionWasRefused():
            say = logger.error
        case RunClaimed():
            say = logger.debug  # `run started` follows
        case GrantEnding() | JobPaused() | RunRecovered():
            say = logger.warning
        case RunFinished(outcome=outcome) if outcome.state in _WARNINGS:
            say = logger.warning
        case RunDecided(state=state) if state in _WARNINGS:
            say = logger.warning
    if say is not logger.debug or logging.getLogger("promptd").isEnabledFor(logging.DEBUG):
        say(_words(type(event).__name__), **_flat(event))


def _renderer(form: LogFormat, out: TextIO) -> Processor:
    match form:
        case LogFormat.CONSOLE:
            return structlog.dev.ConsoleRenderer(colors=out.isatty())
        case LogFormat.AUTO if out.isatty():
            return structlog.dev.ConsoleRenderer(colors=True)
        case _:
            return structlog.processors.JSONRenderer(default=str)


def _secret_filter(redactor: Redactor) -> Processor:
    def clean(value: Any) -> Any:
        match value:
            case str():
                return redactor.clean(value)
            case dict():
                return {key: clean(each) for key, each in value.items()}
            case list() | tuple():
                return [clean(each) for each in value]
            case None | bool() | int() | float():
                return value
            case _:
                return redactor.clean(str(value))

    def process(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        return {key: clean(value) for key, value in line.items()}

    return process


def _words(name: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()


def _flat(event: Event) -> dict[str, Any]:
    """Return an event's fields; a run is told by its job and id, an outcome without its text."""
    line: dict[str, Any] = {}
    for each in fields(event):
        value = getattr(event, each.name)
        match value:
            case ClaimedRun():
                line |= {"job": value.job, "run_id": value.id, "try": value.tries}
                line["scheduled_for"] = value.scheduled_for.isoformat()
            case Outcome():
                line |= {"state": str(value.state), "reason": value.reason, "message": value.message}
                line["served"] = f"{value.served.provider}/{value.served.model}" if value.served else None
            case Enum():
                line[each.name] = str(value.value)
            case _:
                line[each.name] = value
    return {key: value for key, value in line.items() if value is not None}
