"""Server-sent events as providers write them: text in, JSON objects out (WHATWG HTML, section 9.2)."""

import json
from collections.abc import Iterable, Iterator
from io import BytesIO, TextIOWrapper
from itertools import chain
from typing import Any, Final

from jobs.providers.api_modes.reading import is_a_thicket

DONE: Final = "[DONE]"
MOST_EVENTS: Final = 250_000
_NO_JSON: Final = "an event of the stream is not JSON"
_TOO_MANY: Final = f"the stream has more than {MOST_EVENTS:,} events"


def sse_events(body: bytes | str) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream, each as the JSON object of its data, up to the first that is an error.

    An object without a `type` gets the event's name as one. `[DONE]` becomes `{"type": "[DONE]"}`. A field
    named `error:` (seen from gateways) and data that is no JSON object become `{"type": "error", …}`:
    something was said that cannot be part of a proved answer. So does a stream of more than 250,000 events,
    about one for each token of the longest answers there are.
    """
    blocks = _blocks(body if isinstance(body, bytes) else body.encode("utf-8", "replace"))
    for number, (name, data) in enumerate(blocks, 1):
        event = _event(name, data) if number <= MOST_EVENTS else _error(_TOO_MANY)
        yield event
        if first_error((event,)) is not None:
            return


def _blocks(body: bytes) -> Iterator[tuple[str, str]]:
    lines = TextIOWrapper(BytesIO(body), encoding="utf-8-sig", errors="replace", newline=None)
    name, data = "", list[str]()
    for each in chain(lines, ("\n",)):
        line = each.removesuffix("\n")
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "" if not line:
                if data:
                    yield name, "\n".join(data)
                name, data = "", []
            case "event":
                name = value
            case "data":
                data.append(value)
            case "error":
                yield "error", value
            case _:
                continue


def _event(name: str, data: str) -> dict[str, Any]:
    if data.strip() == DONE:
        return {"type": DONE}
    try:
        value = None if is_a_thicket(data) else json.loads(data)
    except (ValueError, RecursionError):
        value = None
    match value:
        case dict() if name == "error" and "error" not in value:
            return {"type": "error", "error": value}
        case dict() if value.get("error"):
            return {"type": "error", **value}
        case dict():
            return {"type": name, **value} if name else value
        case _:
            return _error(data if name == "error" else _NO_JSON)


def _error(message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"message": message}}


def first_error(events: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the first event that states an error as a document with an `error`, or None.

    A flat event (`{"type": "error", "code": …}`, `{"object": "error", …}`) is wrapped; `status`,
    `status_code` and `headers` beside an error are kept, since they say what the HTTP answer no longer can.
    """
    for event in events:
        if event.get("error"):
            return event
        if event.get("type") == "error":
            return {"error": {key: value for key, value in event.items() if key != "type"}}
        if event.get("object") == "error":
            return {"error": event}
    return None
