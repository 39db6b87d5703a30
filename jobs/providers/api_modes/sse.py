"""Server-sent events as providers write them: text in, JSON objects out (WHATWG HTML, section 9.2)."""

import json
from collections.abc import Iterator
from typing import Any, Final

DONE: Final = "[DONE]"
_NO_JSON: Final = "an event of the stream is not JSON"


def sse_events(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream, each as the JSON object of its data.

    An object without a `type` gets the event's name as one. `[DONE]` becomes `{"type": "[DONE]"}`. A field
    named `error:` (seen from gateways) and data that is no JSON object become `{"type": "error", …}`:
    something was said that cannot be part of a proved answer.
    """
    return [_event(name, data) for name, data in _blocks(text)]


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    name, data = "", list[str]()
    for line in [*text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff").split("\n"), ""]:
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
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    match value:
        case dict() if name == "error" and "error" not in value:
            return {"type": "error", "error": value}
        case dict() if value.get("error"):
            return {"type": "error", **value}
        case dict():
            return {"type": name, **value} if name else value
        case _ if name == "error":
            return {"type": "error", "error": {"message": data}}
        case _:
            return {"type": "error", "error": {"message": _NO_JSON}}


def first_error(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the first event that states an error as a document with an `error`, or None.

    A flat event (`{"type": "error", "code": …, "message": …}`) is wrapped; `status`, `status_code` and
    `headers` beside an error are kept, since they say what the HTTP answer no longer can.
    """
    for event in events:
        if event.get("error"):
            return event
        if event.get("type") == "error":
            return {"error": {key: value for key, value in event.items() if key != "type"}}
    return None
