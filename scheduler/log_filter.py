"""The last look at a log line before it is written: no secret in it, no value without an end."""

from collections.abc import Mapping
from typing import Any

from structlog.typing import EventDict, Processor, WrappedLogger

from jobs.secret import Redactor

LONGEST_VALUE = 64 * 1024  # characters
DEEPEST = 8
_CUT = "… (cut)"


def secret_filter(redactor: Redactor) -> Processor:
    """Return what takes secrets out of a line: of names and values, however deep, whatever they are.

    It stands last before the renderer, so that tracebacks and stacks are text by then. What is left is text,
    numbers, lists and mappings: nothing that a renderer would have to ask for its words.
    """

    def text(value: str) -> str:
        cleaned = redactor.clean(value)
        return cleaned if len(cleaned) <= LONGEST_VALUE else cleaned[:LONGEST_VALUE] + _CUT

    def clean(value: Any, depth: int = 0) -> Any:
        match value:
            case str():
                return text(str(value))
            case None | bool() | int() | float():
                return value
            case bytes() | bytearray() | memoryview():
                return text(bytes(value).decode("utf-8", "backslashreplace"))
            case Mapping() if depth < DEEPEST:
                return {text(_words(name)): clean(each, depth + 1) for name, each in value.items()}
            case list() | tuple() | set() | frozenset() if depth < DEEPEST:
                return [clean(each, depth + 1) for each in value]
            case _:
                return text(_words(value))

    def process(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        return {text(str(name)): clean(value) for name, value in line.items()}

    return process


def _words(value: Any) -> str:
    try:
        return str(value)
    except Exception as exc:  # a foreign object that cannot tell what it is must not cost the line
        return f"<{type(value).__name__} that cannot be shown: {type(exc).__name__}>"
