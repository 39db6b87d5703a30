"""The Responses interface: the body of a request, and what its document proves.

The Codex backend speaks it too, with whims: it takes `input` only as a list of items, it insists on
`instructions` and on `store: false`, it answers only streams, and its `response.completed` may carry an
empty `output`. It refuses `max_output_tokens` and says so with a 400 (RayBytes/ChatMock#103).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from jobs.answer_schema import name_of
from jobs.providers.api_modes.reading import count
from jobs.providers.api_modes.shortfall import Shortfall, stated_error
from jobs.providers.api_modes.sse import first_error
from jobs.request import Completion, Request, Usage
from jobs.text import well_formed

PATH: Final = "/responses"

_FINAL: Final = frozenset(
    {"response.completed", "response.failed", "response.incomplete", "response.cancelled", "response.done"}
)
_LENGTH_STOPS: Final = frozenset({"max_output_tokens", "max_tokens", "length"})


def body(request: Request, *, model: str, stream: bool, store: bool | None) -> dict[str, Any]:
    """Return the JSON body of a request; what the job leaves open is not sent, and never a `seed`."""
    parameters = request.parameters
    effort, schema = parameters.reasoning_effort, parameters.response_format
    # Only the Codex backend has to be told not to store, and it refuses a request without instructions
    # (vybestack/llxprt-code#1197); empty ones are enough (icebear0828/codex-proxy#112).
    without_system = "" if store is False else None
    optional = {
        "instructions": request.system or without_system,
        "temperature": parameters.temperature,
        "max_output_tokens": parameters.max_output_tokens,
        "reasoning": {"effort": effort} if effort is not None else None,
        "text": {"format": _format(schema)} if schema is not None else None,
        "store": store,
        "stream": True if stream else None,
    }
    return {
        "model": model,
        "input": [_message(role, text) for role, text in request.turns],
        **{name: value for name, value in optional.items() if value is not None},
        **parameters.extra_body,
    }


def _message(role: str, text: str) -> dict[str, Any]:
    """Return what somebody said as an item: a model's own words are output, also when they are sent back."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema as OpenAI takes it; without `strict`, which takes only a part of JSON Schema."""
    return {"type": "json_schema", "name": name_of(schema), "schema": dict(schema)}


def shortfall(document: Mapping[str, Any]) -> Shortfall | None:
    """Return why `document` is no proved success, or None when it is one; `status` decides first."""
    error = stated_error(document)
    match document.get("status"):
        case "completed" if error is not None:
            return Shortfall("embedded-error", error)
        case "completed":
            return _lack_of_text(document)
        case "incomplete" if error is None:
            reason = _incomplete_reason(document)
            return _lack_of_text(document) if reason in _LENGTH_STOPS else _stopped(reason)
        case str() as status:
            return Shortfall(f"status-{status.replace('_', '-')[:40]}", error)
        case _:
            return Shortfall("embedded-error" if error is not None else "status-missing", error)


def completion(document: Mapping[str, Any]) -> Completion:
    """Return the answer in `document`; raises ValueError when `shortfall` says that there is none."""
    lack = shortfall(document)
    if lack is not None:
        raise ValueError(f"no proved answer: {lack.reason}")
    return Completion(
        text=well_formed(_text(document)),
        truncated=document.get("status") == "incomplete",
        usage=_usage(document.get("usage")),
    )


def document_of(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the response that the events of a stream add up to.

    An `error` event is the document, whatever text came before it. A stream without a final event is a
    response that is still `in_progress`: it is no success.
    """
    final: Mapping[str, Any] | None = None
    items, deltas = list[Any](), list[str]()
    for event in events:
        if error := first_error((event,)):
            return error
        match event:
            case {"type": "response.output_item.done"}:
                items.append(_essence(event.get("item")))
            case {"type": "response.output_text.delta", "delta": str(delta)}:
                deltas.append(delta)
            case {"type": str(kind)} if kind in _FINAL and final is None:
                final = event
    response = final.get("response") if final else None
    document = dict(response) if isinstance(response, Mapping) else {"object": "response"}
    document.setdefault("status", _status_told_by(final))
    if not _text(document):
        document["output"] = items if _text({"output": items}) else [*items, *_said("".join(deltas))]
    return document


def _status_told_by(final: Mapping[str, Any] | None) -> str:
    if final is None:
        return "in_progress"
    word = str(final["type"]).removeprefix("response.")
    return "completed" if word == "done" else word


def _essence(item: Any) -> dict[str, Any]:
    """Return an item with what is read of one, so that what else stands in it takes no memory."""
    said = {"output": [item]}
    texts = [{"type": "output_text", "text": text} for text in _parts(said, kind="output_text", key="text")]
    refusals = [{"type": "refusal", "refusal": each} for each in _parts(said, kind="refusal", key="refusal")]
    return {"type": "message", "role": "assistant", "content": [*texts, *refusals]}


def _said(text: str) -> list[Any]:
    return [_message("assistant", text)] if text else []


def _incomplete_reason(document: Mapping[str, Any]) -> str | None:
    details = document.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    return reason if isinstance(reason, str) else None


def _stopped(reason: str | None) -> Shortfall:
    return Shortfall("status-incomplete", {"code": reason} if reason else None)


def _lack_of_text(document: Mapping[str, Any]) -> Shortfall | None:
    if _text(document).strip():
        return None
    refusal = "".join(_parts(document, kind="refusal", key="refusal"))
    if refusal:
        return Shortfall("refusal", {"code": "refusal", "message": refusal})
    return Shortfall("empty-text")


def _text(document: Mapping[str, Any]) -> str:
    return "".join(_parts(document, kind="output_text", key="text"))


def _parts(document: Mapping[str, Any], *, kind: str, key: str) -> Iterator[str]:
    output = document.get("output")
    for item in output if isinstance(output, list) else []:
        content = item.get("content") if isinstance(item, Mapping) and item.get("type") == "message" else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, Mapping) and part.get("type") == kind and isinstance(part.get(key), str):
                yield part[key]


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, Mapping):
        return Usage()
    return Usage(count(usage.get("input_tokens")), count(usage.get("output_tokens")))
