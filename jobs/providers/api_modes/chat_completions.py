"""The Chat Completions interface: the body of a request, and what its document proves.

`max_output_tokens` is sent as `max_completion_tokens`, as OpenAI documents (its reasoning models refuse
`max_tokens`). Servers that know only the older name get it by `extra_body: {max_tokens: …}`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from jobs.answer_schema import name_of
from jobs.providers.api_modes.reading import count
from jobs.providers.api_modes.shortfall import Shortfall, stated_error
from jobs.providers.api_modes.sse import DONE, first_error
from jobs.request import Completion, Request, Usage
from jobs.text import well_formed

PATH: Final = "/chat/completions"

_LENGTH_STOPS: Final = frozenset({"length", "max_tokens", "model_length"})
_FAILED_STOPS: Final = frozenset(
    {"content_filter", "sensitive", "error", "network_error", "insufficient_system_resource", "cancelled"}
)
_CUT: Final = "chat.completion.chunk"


def body(request: Request, *, model: str, stream: bool, store: bool | None) -> dict[str, Any]:
    """Return the JSON body of a request; what the job leaves open is not sent."""
    parameters = request.parameters
    system = [{"role": "system", "content": request.system}] if request.system else []
    turns = [{"role": role, "content": text} for role, text in request.turns]
    schema = parameters.response_format
    optional = {
        "temperature": parameters.temperature,
        "max_completion_tokens": parameters.max_output_tokens,
        "reasoning_effort": parameters.reasoning_effort,
        "seed": parameters.seed,
        "response_format": _format(schema) if schema is not None else None,
        "store": store,
        "stream": True if stream else None,
        "stream_options": {"include_usage": True} if stream else None,
    }
    return {
        "model": model,
        "messages": [*system, *turns],
        **{name: value for name, value in optional.items() if value is not None},
        **parameters.extra_body,
    }


def _format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema as OpenAI takes it; without `strict`, which takes only a part of JSON Schema."""
    return {"type": "json_schema", "json_schema": {"name": name_of(schema), "schema": dict(schema)}}


def shortfall(document: Mapping[str, Any]) -> Shortfall | None:
    """Return why `document` is no proved success, or None when it is one."""
    error = stated_error(document)
    if error is not None:
        return Shortfall("embedded-error", error)
    choice = _choice(document)
    if choice is None:
        return Shortfall("no-choices")
    finish = choice.get("finish_reason")
    if error := stated_error(choice):
        return Shortfall("choice-error", error)
    if isinstance(finish, str) and finish in _FAILED_STOPS:
        return Shortfall(f"finish-{finish.replace('_', '-')}", {"code": finish})
    if document.get("object") == _CUT:
        return Shortfall("stream-cut")
    return None if _text(choice).strip() else _without_text(choice)


def completion(document: Mapping[str, Any]) -> Completion:
    """Return the answer in `document`; raises ValueError when `shortfall` says that there is none."""
    choice = _choice(document)
    lack = shortfall(document)
    if choice is None or lack is not None:
        raise ValueError(f"no proved answer: {lack.reason if lack else 'no-choices'}")
    return Completion(
        text=well_formed(_text(choice)),
        truncated=choice.get("finish_reason") in _LENGTH_STOPS,
        usage=_usage(document.get("usage")),
    )


def document_of(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the chat document that the chunks of a stream add up to.

    An error chunk is the document, whatever text came before it. A stream that ended without
    `finish_reason` and without `[DONE]` keeps the object name of a chunk: it is no success.
    """
    texts, refusals = list[str](), list[str]()
    document: dict[str, Any] = {}
    finish: Any = None
    done = False
    for chunk in events:
        if error := first_error((chunk,)):
            return error
        done = done or chunk.get("type") == DONE
        document |= {key: chunk[key] for key in ("id", "model", "usage") if chunk.get(key)}
        choice = _choice(chunk)
        if choice is None:
            continue
        delta = choice.get("delta")
        message = delta if isinstance(delta, Mapping) else {}
        texts.append(_content(message.get("content")))
        refusals.append(_content(message.get("refusal")))
        finish = choice.get("finish_reason") or finish
    message = {"role": "assistant", "content": "".join(texts), "refusal": "".join(refusals) or None}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return {"object": "chat.completion" if finish or done else _CUT, **document, "choices": choices}


def _choice(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choices = document.get("choices")
    if not isinstance(choices, list):
        return None
    return next((choice for choice in choices if isinstance(choice, Mapping)), None)


def _text(choice: Mapping[str, Any]) -> str:
    message = choice.get("message")
    return _content(message.get("content")) if isinstance(message, Mapping) else ""


def _content(content: Any) -> str:
    match content:
        case str():
            return content
        case list():
            parts = (part.get("text") for part in content if isinstance(part, Mapping))
            return "".join(part for part in parts if isinstance(part, str))
        case _:
            return ""


def _without_text(choice: Mapping[str, Any]) -> Shortfall:
    message = choice.get("message")
    refusal = message.get("refusal") if isinstance(message, Mapping) else None
    if isinstance(refusal, str) and refusal:
        return Shortfall("refusal", {"code": "refusal", "message": refusal})
    return Shortfall("empty-text")


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, Mapping):
        return Usage()
    return Usage(count(usage.get("prompt_tokens")), count(usage.get("completion_tokens")))
