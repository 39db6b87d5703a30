"""What the loopback server hears and says, in the shapes of OpenAI's API reference and RFC 6749."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

from jobs import clock

_PLACEHOLDER = re.compile(r"\{(prompt|model|number)\}")
_NO_BODY = frozenset({204, 304})
_NO_STORE = {"cache-control": "no-store"}

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Pairs = tuple[tuple[str, str], ...]
Document = dict[str, Any]


class Endpoint(StrEnum):
    """What can be asked for; a request belongs to the one its path ends with, whatever the prefix."""

    CHAT = "/v1/chat/completions"
    RESPONSES = "/v1/responses"
    CODEX = "/codex/responses"
    TOKEN = "/oauth/token"
    DEVICE = "/oauth/device/code"
    MODELS = "/v1/models"


Finish = Literal["stop", "length", "content_filter"]
_ENDING: dict[Finish, tuple[str, str | None]] = {  # the same in a Responses document: status and code
    "stop": ("completed", None),
    "length": ("incomplete", "max_output_tokens"),
    "content_filter": ("incomplete", "content_filter"),
}


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in. Its `repr` shows neither key, headers, query nor body.

    `headers` keeps order, case and duplicates; `key` is the bearer key, and at the token endpoint what
    is exchanged; `prompt` is the last thing a user said; `number` counts the server's requests from 1;
    `endpoint` is None for a path that is not served.
    """

    method: str
    path: str
    headers: Pairs = field(repr=False)
    body: bytes = field(repr=False)
    received_at: float
    key: str | None = field(repr=False)
    model: str | None
    endpoint: Endpoint | None
    number: int
    prompt: str = field(default="", repr=False)
    query: str = field(default="", repr=False)

    @property
    def by_name(self) -> dict[str, str]:
        """Headers by lower-case name, duplicates joined with a comma (RFC 9110, section 5.3)."""
        found: dict[str, str] = {}
        for name, value in self.headers:
            found[name.lower()] = f"{found[name.lower()]}, {value}" if name.lower() in found else value
        return found

    def json(self) -> Any:
        """Return the body as JSON; raises ValueError when it is not."""
        return json.loads(self.body)

    def document(self) -> Document:
        """Return the body as a JSON object, {} when it is anything else."""
        return json_object(self.body)

    def form(self) -> dict[str, str]:
        """Return the fields of a form-encoded body, {} when it is none."""
        is_form = "x-www-form-urlencoded" in self.by_name.get("content-type", "")
        return dict(parse_qsl(self.body.decode("latin-1"))) if is_form else {}


def json_object(body: bytes) -> Document:
    """Return a body as a JSON object, {} when it is anything else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


@dataclass(frozen=True, slots=True)
class Wire:
    """An HTTP answer before it is framed; without a length among its headers each piece is a chunk."""

    status: int
    headers: Pairs = field(repr=False)
    pieces: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def of(cls, status: int, body: bytes, headers: Headers = ()) -> Self:
        """Return an answer with a length, unless its headers frame it already."""
        if body and status in _NO_BODY:
            raise ValueError(f"an answer with status {status} has no body")
        pairs = tuple(headers.items() if isinstance(headers, Mapping) else headers)
        framed = {"content-length", "transfer-encoding"} & {name.lower() for name, _ in pairs}
        length = () if framed or status in _NO_BODY else (("content-length", str(len(body))),)
        return cls(status, (*pairs, *length), (body,) if body else ())

    @classmethod
    def json(cls, status: int, document: Any, headers: Headers = ()) -> Self:
        """Return a JSON answer; a content type among `headers` replaces the usual one."""
        given = {name.lower(): value for name, value in dict(headers).items()}
        return cls.of(status, encoded(document), {"content-type": "application/json", **given})

    @classmethod
    def events(cls, events: Iterable[bytes]) -> Self:
        """Return a stream of server-sent events."""
        headers = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-store"))
        return cls(200, headers, tuple(events))

    def unchanged(self, _received: Received) -> Self:
        """Return itself, whatever was asked."""
        return self


Text = str | Callable[[Received], str]


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer: `wire` makes it for a request, the rest says how it is delivered."""

    wire: Callable[[Received], Wire] = field(repr=False)
    delay: float = 0.0
    chunk: int | None = None
    pause: float = 0.0
    slow_head: bool = False
    cut_after: int | None = None
    waits: Literal["", "to be let go", "for ever"] = ""

    @classmethod
    def text(cls, text: Text, *, finish: Finish = "stop", usage: tuple[int, int] | None = None) -> Self:
        """A good answer in the shape of the endpoint asked, streamed when the request says so.

        `{prompt}`, `{model}` and `{number}` in a string are filled in from the request; a callable
        gets the request and its text is taken as it is. `usage` is (input, output) in tokens, made
        up when None. An endpoint that is no model answers with the text as text/plain.
        """
        status, code = _ENDING[finish]

        def wire(received: Received) -> Wire:
            said = _Said(_filled(text, received), usage, finish, status, code)
            return _SHAPES.get(received.endpoint, _plain)(received, said)

        return cls(wire)

    @classmethod
    def responses_status(
        cls, status: str, *, code: str | None = None, message: str = "scripted", output_text: str = ""
    ) -> Self:
        """A Responses document (HTTP 200) with any status; `code` is the error's, or why it is incomplete."""
        said = _Said(output_text, None, "stop", status, code, message)
        return cls(lambda received: _responses(received, said))

    @classmethod
    def error(
        cls, status: int, *, code: str | None = None, type: str | None = None, message: str = "scripted",
        param: str | None = None, headers: Headers = (),
    ) -> Self:  # fmt: skip
        """An error in OpenAI's shape; status 200 is possible too."""
        error = {"message": message, "type": type, "param": param, "code": code}
        return cls.json(status, {"error": error}, headers)

    @classmethod
    def json(cls, status: int, document: Any, headers: Headers = ()) -> Self:
        """Any JSON document, for the shapes that are not OpenAI's."""
        return cls(Wire.json(status, document, headers).unchanged)

    @classmethod
    def raw(cls, status: int, headers: Headers = (), body: bytes = b"") -> Self:
        """These headers and bytes, and a length unless the headers frame the body, which they do truly."""
        return cls(Wire.of(status, body, headers).unchanged)

    @classmethod
    def tokens(
        cls, *, access_token: str, refresh_token: str | None = None, expires_in: int = 3600,
        id_token: str | None = None,
    ) -> Self:  # fmt: skip
        """A granted refresh (RFC 6749, 5.1); `{number}` in a token is filled in; None is left out."""
        tokens = {"access_token": access_token, "refresh_token": refresh_token, "id_token": id_token}

        def wire(received: Received) -> Wire:
            given = {name: _filled(token, received) for name, token in tokens.items() if token is not None}
            return Wire.json(200, {**given, "token_type": "Bearer", "expires_in": expires_in}, _NO_STORE)

        return cls(wire)

    @classmethod
    def token_error(cls, status: int, error: str, *, description: str | None = None) -> Self:
        """A refused refresh (RFC 6749, 5.2)."""
        said = {} if description is None else {"error_description": description}
        return cls.json(status, {"error": error, **said}, _NO_STORE)

    def after(self, delay: float) -> Self:
        """The same, `delay` seconds after the request has come in."""
        return replace(self, delay=delay)

    def slowly(self, chunk: int, pause: float, *, head: bool = False) -> Self:
        """The same, its body (and its head too?) in pieces of `chunk` bytes, `pause` seconds in between."""
        if chunk < 1:
            raise ValueError("a piece has at least one byte")
        return replace(self, chunk=chunk, pause=pause, slow_head=head)

    def cut(self, after_bytes: int = 0) -> Self:
        """The same, but the connection is dropped: at once, or after the head and so many bytes of body."""
        return replace(self, cut_after=after_bytes)

    def silent(self) -> Self:
        """The same, but it is never sent: the request was understood, and its answer is lost."""
        return replace(self, waits="for ever")

    def held(self) -> Self:
        """The same, once the server has been told to `let_go`; a delay counts from then on."""
        return replace(self, waits="to be let go")

    def portions(self, head: bytes, body: bytes) -> Iterator[bytes]:
        """Yield what is written, one write each; nothing at all when cut at once."""
        if self.cut_after == 0:
            return
        body = body[: self.cut_after]
        rest = head + body if self.slow_head or self.chunk is None else body
        if rest is body:
            yield head
        step = self.chunk or len(rest)
        for start in range(0, len(rest), step):
            yield rest[start : start + step]


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    usage: tuple[int, int] | None
    finish: Finish
    status: str
    code: str | None
    message: str = ""

    def tokens(self, received: Received) -> tuple[int, int]:
        return self.usage or (len(received.prompt) // 4 + 1, len(self.text) // 4 + 1)

    def deltas(self) -> list[str]:
        step = max(8, math.ceil(len(self.text) / 32))
        return [self.text[start : start + step] for start in range(0, len(self.text), step)]


def _filled(text: Text, received: Received) -> str:
    if not isinstance(text, str):
        return text(received)
    known = {"prompt": received.prompt, "model": received.model or "", "number": str(received.number)}
    return _PLACEHOLDER.sub(lambda found: known[found[1]], text)


def _plain(_received: Received, said: _Said) -> Wire:
    return Wire.of(200, said.text.encode(), {"content-type": "text/plain; charset=utf-8"})


def _chat(received: Received, said: _Said) -> Wire:
    asked = received.document()
    into, out = said.tokens(received)
    usage = {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}
    common = _common(received, f"chatcmpl-{received.number}", "created")
    if asked.get("stream") is True:
        counted = usage if (asked.get("stream_options") or {}).get("include_usage") else None
        return Wire.events(_chat_events({**common, "object": "chat.completion.chunk"}, said, counted))
    message = {"role": "assistant", "content": said.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish}
    return Wire.json(200, {**common, "object": "chat.completion", "choices": [choice], "usage": usage})


def _chat_events(common: Document, said: _Said, usage: Document | None) -> Iterator[bytes]:
    contents = [{"role": "assistant", "content": ""}, *({"content": delta} for delta in said.deltas())]
    for delta, finish in [*((content, None) for content in contents), ({}, said.finish)]:
        yield _event({**common, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    if usage is not None:
        yield _event({**common, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _responses(received: Received, said: _Said) -> Wire:
    common = {**_common(received, f"resp_{received.number}", "created_at"), "object": "response"}
    settings = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "status": "in_progress"}
    begun = {**common, **settings, "error": None, "incomplete_details": None, "output": [], "usage": None}
    into, out = said.tokens(received)
    usage = {
        "input_tokens": into, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": out, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": into + out,
    }  # fmt: skip
    error = {"error": {"code": said.code, "message": said.message}} if said.code else {}
    cause = {"incomplete_details": {"reason": said.code}} if said.status == "incomplete" else error
    ended = {**begun, **cause, "status": said.status, "usage": usage, "output": _output(received, said)}
    if received.document().get("stream") is True:
        return Wire.events(_responses_events(begun, ended, said))
    return Wire.json(200, ended)


def _output(received: Received, said: _Said) -> list[Document]:
    if not said.text and said.status != "completed":
        return []
    status = "completed" if said.status == "completed" else "incomplete"
    content = [{"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}]
    item = {"id": f"msg_{received.number}", "type": "message", "role": "assistant"}
    return [{**item, "status": status, "content": content}]


def _responses_events(begun: Document, ended: Document, said: _Said) -> Iterator[bytes]:
    """Yield the events of one answer; a status without an event of its own ends in `response.completed`."""
    last = f"response.{said.status}" if said.status in {"failed", "incomplete"} else "response.completed"
    steps: list[tuple[str, Document]] = [("response.created", {"response": begun})]
    for item in ended["output"]:
        opened = {**item, "status": "in_progress", "content": []}
        at = {"item_id": item["id"], "output_index": 0, "content_index": 0, "logprobs": []}
        steps.append(("response.output_item.added", {"output_index": 0, "item": opened}))
        steps += [("response.output_text.delta", {**at, "delta": delta}) for delta in said.deltas()]
        steps.append(("response.output_text.done", {**at, "text": said.text}))
        steps.append(("response.output_item.done", {"output_index": 0, "item": item}))
    for number, (kind, fields) in enumerate([*steps, (last, {"response": ended})]):
        yield _event({"type": kind, "sequence_number": number, **fields}, kind)


def _common(received: Received, id: str, created: str) -> Document:
    return {"id": id, created: int(clock.utcnow().timestamp()), "model": received.model or "loopback"}


def encoded(document: Any) -> bytes:
    """Return JSON as providers send it: compact, and UTF-8 rather than escapes."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _event(document: Document, kind: str | None = None) -> bytes:
    return (f"event: {kind}\n".encode() if kind else b"") + b"data: " + encoded(document) + b"\n\n"


_SHAPES: dict[Endpoint | None, Callable[[Received, _Said], Wire]] = {
    Endpoint.CHAT: _chat,
    Endpoint.RESPONSES: _responses,
    Endpoint.CODEX: _responses,
}
