"""The shapes in which providers wrap an error, read into one: a list of layers, innermost first.

Seen in the wild: `{"error": {…}}`, `error` a string, `detail` a string, an object or a list, flat bodies
(`message` and `status`, `object: error`, problem+json), a list of one, `message` an object, JSON in a
string in JSON (gateways, OpenRouter's `metadata.raw`), Azure's `innererror`, and events where a document was
expected. A message is read as JSON only when it is JSON as a whole: providers echo prompts, and a prompt may
contain anything.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from jobs.providers.api_modes.sse import first_error, sse_events

_NESTING: Final = 8
_LONGEST_CODE_NUMBER: Final = 10**16
_CODE_LENGTH: Final = 100
_MESSAGE_LENGTH: Final = 4000
_LOWEST_ERROR, _HIGHEST_ERROR = 400, 599
_WORD: Final = re.compile(r"[A-Za-z][\w.\-]*")
_TITLE: Final = re.compile(r"<title[^>]*>([^<]{0,300})", re.IGNORECASE)
_HTML: Final = re.compile(
    r"\s*(?:<!--.{0,500}?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_EVENTS: Final = re.compile(r"\s*(?:(?:event|data|error|id|retry) ?|):", re.ASCII)
_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
_MESSAGE_KEYS: Final = ("message", "msg", "error_description", "detail", "description", "title")


class Shape(StrEnum):
    """What kind of text a body is."""

    EMPTY = "empty"
    EVENTS = "events"
    HTML = "html"
    JSON = "json"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Body:
    """A body, parsed as far as it can be: `text` is set for what is no JSON.

    `document` is what JSON says, or the error that events state.
    """

    shape: Shape
    document: Any = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """One statement of an error: what it says of itself, and the object that says it.

    `status` is an HTTP status that the layer states (as `status`, `status_code` or a three-digit `code`).
    """

    status: int | None = None
    code: str | None = None
    type: str | None = None
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)


def read_body(body: bytes) -> Body:
    """Parse a body; never raises. JSON that is too deep or broken is text, events without an error are."""
    text = body.decode("utf-8", errors="replace").removeprefix("\ufeff")
    if not text.strip():
        return Body(Shape.EMPTY)
    document = _parse(text)
    if document is not None:
        return Body(Shape.JSON, document=document)
    if _HTML.match(text[:2000]):
        title = _TITLE.search(text[:_MESSAGE_LENGTH])
        return Body(Shape.HTML, text=title.group(1) if title else "")
    if _EVENTS.match(text) and (error := first_error(sse_events(text))) is not None:
        return Body(Shape.EVENTS, document=error)
    return Body(Shape.TEXT, text=text[:_MESSAGE_LENGTH])


def first_object(document: Any) -> Mapping[str, Any] | None:
    """Return the object that a document is: itself, the first of a list, or what its JSON string holds."""
    for _ in range(_NESTING):
        match document:
            case dict():
                return document
            case [first, *_]:
                document = first
            case str():
                document = _parse(document)
            case _:
                return None
    return None


def layers_of(error: Any) -> tuple[Layer, ...]:
    """Return what an error document (or an error object, or its text) states, innermost first."""
    return tuple(_layers(error, outer=_EMPTY, depth=_NESTING))


def event_headers(document: Any) -> dict[str, str]:
    """Return the headers that an error event carries inside its body, names in lower case."""
    headers = document.get("headers") if isinstance(document, Mapping) else None
    if not isinstance(headers, Mapping):
        return {}
    plain = ((name, value) for name, value in headers.items() if isinstance(value, str | int | float))
    return {str(name).lower(): str(value) for name, value in plain}


def _parse(text: str) -> Any:
    """Return what JSON `text` says, None for `null` and for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _layers(value: Any, *, outer: Mapping[str, Any], depth: int) -> Iterator[Layer]:
    if depth == 0:
        return
    match value:
        case dict():
            yield from _layers_of_object(value, outer=outer, depth=depth)
        case [first, *_]:
            yield from _layers(first, outer=outer, depth=depth - 1)
        case str() if (inner := _whole_json(value)) is not None:
            yield from _layers(inner, outer=outer, depth=depth - 1)
        case str():
            yield _layer_of_text(value, outer=outer)
        case _:
            return


def _layers_of_object(value: dict[str, Any], *, outer: Mapping[str, Any], depth: int) -> Iterator[Layer]:
    wrapped = _wrapped(value)
    if wrapped is not None:
        yield from _layers(wrapped, outer=value, depth=depth - 1)
        return
    for inner in _inner(value):
        yield from _layers(inner, outer=_EMPTY, depth=depth - 1)
    yield Layer(
        status=_status(value) or _status(outer),
        code=_code(value.get("code")) or _code(outer.get("code")),
        type=_type(value),
        message=_message(value),
        data=value,
    )


def _wrapped(value: Mapping[str, Any]) -> Any:
    """Return the error that an envelope carries, or None when the object speaks for itself."""
    for key in ("error", "response", "detail", "errors"):
        inner = value.get(key)
        match inner:
            case dict() if inner:
                return inner
            case [dict() | str(), *_] if key != "response":
                return inner
            case str() if key == "error" and inner:
                return inner
            case _:
                continue
    return None


def _inner(value: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the errors inside an error: an upstream's raw answer, a message that is JSON or an object."""
    metadata = value.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    if isinstance(raw, str | dict) and raw:
        yield raw
    detailed = value.get("innererror")
    if isinstance(detailed, dict) and detailed:
        yield detailed
    message = value.get("message")
    if isinstance(message, dict) and message:
        yield message
    elif isinstance(message, str) and (inner := _whole_json(message)) is not None:
        yield inner


def _layer_of_text(text: str, *, outer: Mapping[str, Any]) -> Layer:
    """Read an error that is a bare string: a word is a code (RFC 6749, 5.2), anything else a message."""
    word = text if _WORD.fullmatch(text) and len(text) <= _CODE_LENGTH else None
    said = _message(outer) if word else ""
    return Layer(
        status=_status(outer),
        code=word or _code(outer.get("code")),
        type=_type(outer),
        message=said or text[:_MESSAGE_LENGTH],
        data=outer,
    )


def _whole_json(text: str) -> Any:
    stripped = text.strip()
    if not stripped or stripped[0] not in "{[" or stripped[-1] not in "}]":
        return None
    parsed = _parse(stripped)
    return parsed if isinstance(parsed, dict | list) and parsed else None


def _status(value: Mapping[str, Any]) -> int | None:
    for key in ("status", "status_code", "code"):
        stated = value.get(key)
        if isinstance(stated, str) and stated.isascii() and stated.isdigit() and len(stated) == len("400"):
            stated = int(stated)
        if isinstance(stated, int) and _LOWEST_ERROR <= stated <= _HIGHEST_ERROR:
            return stated
    return None


def _code(value: Any) -> str | None:
    match value:
        case bool():
            return None
        case int() if abs(value) < _LONGEST_CODE_NUMBER:
            return str(value)
        case str():
            return value.strip()[:_CODE_LENGTH] or None
        case _:
            return None


def _type(value: Mapping[str, Any]) -> str | None:
    """Return `type`, or the word that Google's APIs put into `status`."""
    kind = value.get("type")
    if isinstance(kind, str) and kind.strip() and kind not in ("error", "response.failed"):
        return kind.strip()[:_CODE_LENGTH]
    status = value.get("status")
    return status[:_CODE_LENGTH] if isinstance(status, str) and _WORD.fullmatch(status) else None


def _message(value: Mapping[str, Any]) -> str:
    for key in _MESSAGE_KEYS:
        said = value.get(key)
        if isinstance(said, str) and said.strip():
            return said[:_MESSAGE_LENGTH]
    return ""
