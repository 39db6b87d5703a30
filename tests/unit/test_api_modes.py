"""The two OpenAI interfaces: what is sent, what counts as an answer, and what a stream adds up to."""

import json
from typing import Any, Final

import pytest

from jobs.providers.api_modes import MODES, completion, responses, shortfall, sse_events
from jobs.providers.api_modes import chat_completions as chat
from jobs.request import ApiMode, Completion, Correction, Parameters, Request, Usage

FULL: Final = Request(
    prompt="Say hi",
    system="Be brief",
    parameters=Parameters(
        temperature=0.0, max_output_tokens=9, reasoning_effort="low", seed=7, extra_body={"top_p": 0.5}
    ),
)
MESSAGE: Final = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}


def stream(*events: dict[str, Any]) -> list[dict[str, Any]]:
    """Return events as they come back from the wire."""
    return list(sse_events("".join(f"data: {json.dumps(event)}\n\n" for event in events)))


def delta(text: str, finish: str | None = None) -> dict[str, Any]:
    """Return a chunk of a chat stream."""
    return {
        "object": "chat.completion.chunk",
        "choices": [{"delta": {"content": text}, "finish_reason": finish}],
    }


def response(**fields: Any) -> dict[str, Any]:
    """Return a response that is completed unless told otherwise."""
    return {"object": "response", "status": "completed", "error": None, "output": [MESSAGE], **fields}


def test_every_mode_has_its_module() -> None:
    """A new mode without a module fails here."""
    assert {mode: MODES[mode].PATH for mode in ApiMode} == {
        ApiMode.CHAT_COMPLETIONS: "/chat/completions",
        ApiMode.RESPONSES: "/responses",
    }


def test_a_chat_body_has_openais_names() -> None:
    """The output limit goes as `max_completion_tokens`, extra fields go last."""
    assert chat.body(FULL, model="m", stream=True, store=False) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Say hi"}],
        "temperature": 0.0,
        "max_completion_tokens": 9,
        "reasoning_effort": "low",
        "seed": 7,
        "store": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_p": 0.5,
    }


def test_a_responses_body_has_a_list_as_input() -> None:
    """The Codex backend refuses a string; a seed is not known to this interface."""
    assert responses.body(FULL, model="m", stream=True, store=False) == {
        "model": "m",
        "instructions": "Be brief",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Say hi"}]},
        ],
        "temperature": 0.0,
        "max_output_tokens": 9,
        "reasoning": {"effort": "low"},
        "store": False,
        "stream": True,
        "top_p": 0.5,
    }


@pytest.mark.parametrize(("mode", "keys"), [(chat, {"model", "messages"}), (responses, {"model", "input"})])
def test_what_a_job_leaves_open_is_not_sent(mode: Any, keys: set[str]) -> None:
    """The provider's own defaults hold."""
    assert set(mode.body(Request("x"), model="m", stream=False, store=None)) == keys


def test_a_backend_that_must_not_store_gets_instructions_even_without_a_system_prompt() -> None:
    """The Codex backend refuses a request without the field."""
    body = responses.body(Request("x"), model="m", stream=True, store=False)

    assert body["instructions"] == ""


def test_extra_body_is_merged_last() -> None:
    """It may replace what promptd would send, for servers that know only older names."""
    request = Request(
        "x", parameters=Parameters(max_output_tokens=9, extra_body={"max_completion_tokens": 3})
    )

    assert chat.body(request, model="m", stream=False, store=None)["max_completion_tokens"] == 3


SCHEMA: Final = {"title": "Daily digest", "type": "object"}


def test_a_schema_is_sent_as_each_interface_takes_it() -> None:
    """By its title, and without `strict`: that takes only a part of JSON Schema."""
    request = Request("x", parameters=Parameters(response_format=SCHEMA))

    asked = [mode.body(request, model="m", stream=False, store=None) for mode in (chat, responses)]

    named = {"name": "Daily_digest", "schema": SCHEMA}
    assert asked[0]["response_format"] == {"type": "json_schema", "json_schema": named}
    assert asked[1]["text"] == {"format": {"type": "json_schema", **named}}


def test_a_correction_goes_on_with_the_conversation() -> None:
    """The model sees its own answer as its own words, then what is said about it."""
    request = Request("x", system="s", correction=Correction("mine", "wrong"))

    asked = chat.body(request, model="m", stream=False, store=None)["messages"]
    items = responses.body(request, model="m", stream=False, store=None)["input"]

    assert [(turn["role"], turn["content"]) for turn in asked] == [
        ("system", "s"),
        ("user", "x"),
        ("assistant", "mine"),
        ("user", "wrong"),
    ]
    assert [(item["role"], item["content"][0]["type"], item["content"][0]["text"]) for item in items] == [
        ("user", "input_text", "x"),
        ("assistant", "output_text", "mine"),
        ("user", "input_text", "wrong"),
    ]


def test_a_chat_document_becomes_a_completion() -> None:
    """Text, truncation and usage are read."""
    document = {
        "choices": [{"finish_reason": "length", "message": {"content": "Half"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }

    assert chat.completion(document) == Completion("Half", truncated=True, usage=Usage(3, 4))


def test_a_response_becomes_a_completion() -> None:
    """The texts of all messages are joined, reasoning items are not."""
    document = response(
        output=[{"type": "reasoning", "content": [{"type": "output_text", "text": "hm"}]}, MESSAGE, MESSAGE],
        usage={"input_tokens": 3, "output_tokens": 4},
    )

    assert responses.completion(document) == Completion("HiHi", usage=Usage(3, 4))


def test_a_response_cut_by_length_keeps_its_text() -> None:
    """A length stop is an outcome, no error."""
    document = response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})

    assert responses.completion(document) == Completion("Hi", truncated=True)


FAILED: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "failed with output": (response(status="failed", error={"code": "x"}), "status-failed"),
    "cancelled with output": (response(status="cancelled"), "status-cancelled"),
    "in progress": (response(status="in_progress"), "status-in-progress"),
    "no status": ({"output": [MESSAGE]}, "status-missing"),
    "filtered": (
        response(status="incomplete", incomplete_details={"reason": "content_filter"}),
        "status-incomplete",
    ),
    "incomplete without reason": (response(status="incomplete"), "status-incomplete"),
    "completed with an error": (response(error={"code": "x"}), "embedded-error"),
    "completed without text": (response(output=[]), "empty-text"),
    "only a tool call": (response(output=[{"type": "function_call", "name": "f"}]), "empty-text"),
    "a refusal": (
        response(output=[{"type": "message", "content": [{"type": "refusal", "refusal": "No"}]}]),
        "refusal",
    ),
    "length without text": (
        response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}, output=[]),
        "empty-text",
    ),
    "no choices": ({"choices": []}, "no-choices"),
    "choices are no list": ({"choices": "x"}, "no-choices"),
    "no message": ({"choices": [{}]}, "empty-text"),
    "chat error": (
        {"error": {"message": "x"}, "choices": [{"message": {"content": "Hi"}}]},
        "embedded-error",
    ),
    "choice error": ({"choices": [{"message": {"content": "Hi"}, "error": {"code": 502}}]}, "choice-error"),
    "filtered half": (
        {"choices": [{"message": {"content": "Hal"}, "finish_reason": "content_filter"}]},
        "finish-content-filter",
    ),
}


@pytest.mark.parametrize(("document", "reason"), FAILED.values(), ids=FAILED)
def test_a_document_without_proof_says_what_it_lacks(document: dict[str, Any], reason: str) -> None:
    """`status` decides before any output is read, and no empty text is an answer."""
    lack = shortfall(document)

    assert lack is not None
    assert lack.reason == reason


def test_a_document_in_the_other_mode_is_read_by_its_shape() -> None:
    """What `shortfall` finds to be an answer, `completion` can always read."""
    documents = [response(), {"choices": [{"message": {"content": "Hi"}}]}]

    assert [completion(document).text for document in documents] == ["Hi", "Hi"]
    assert [shortfall(document) for document in documents] == [None, None]


@pytest.mark.parametrize("mode", [chat, responses])
def test_no_completion_is_made_of_a_document_without_proof(mode: Any) -> None:
    """The caller cannot forget to ask."""
    with pytest.raises(ValueError, match="no proved answer"):
        mode.completion({"status": "failed", "choices": []})


def test_chat_chunks_add_up_to_a_document() -> None:
    """Text, finish reason and the usage of the last chunk are kept."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    document = chat.document_of(
        stream(
            delta("He"),
            delta("y", "stop"),
            {"object": "chat.completion.chunk", "choices": [], "usage": usage},
        )
    )

    assert chat.completion(document) == Completion("Hey", usage=Usage(1, 2))


def test_a_chat_stream_that_ends_with_done_is_whole() -> None:
    """Some servers send no finish reason."""
    events = [*stream(delta("Hey")), *sse_events("data: [DONE]\n\n")]

    assert chat.completion(chat.document_of(events)).text == "Hey"


@pytest.mark.parametrize("events", [[], [delta("Half a sen")]])
def test_a_chat_stream_cut_before_its_end_is_no_success(events: list[dict[str, Any]]) -> None:
    """Half an answer is none."""
    assert shortfall(chat.document_of(events)) is not None


def test_an_error_after_half_a_chat_text_is_the_document() -> None:
    """The text that came before it counts for nothing."""
    document = chat.document_of(stream(delta("Half"), {"error": {"code": 429}, **delta("", "error")}))

    assert document["error"] == {"code": 429}
    assert shortfall(document) is not None


def test_a_completed_event_carries_the_response() -> None:
    """The final event is the document."""
    events = stream({"type": "response.created"}, {"type": "response.completed", "response": response()})

    assert responses.completion(responses.document_of(events)).text == "Hi"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.delta", "delta": "Hi"},
        {"type": "response.output_item.done", "item": MESSAGE},
    ],
)
def test_an_empty_output_is_filled_from_the_events(event: dict[str, Any]) -> None:
    """The Codex backend completes with an empty `output`."""
    events = stream(event, {"type": "response.completed", "response": response(output=[])})

    assert responses.completion(responses.document_of(events)).text == "Hi"


def test_text_that_came_as_deltas_and_as_an_item_counts_once() -> None:
    """Both are sent for the same message."""
    events = stream(
        {"type": "response.output_text.delta", "delta": "Hi"},
        {"type": "response.output_item.done", "item": MESSAGE},
        {"type": "response.completed", "response": response(output=[])},
    )

    assert responses.completion(responses.document_of(events)).text == "Hi"


@pytest.mark.parametrize("kind", ["failed", "incomplete"])
def test_a_final_event_that_is_no_success_is_none(kind: str) -> None:
    """Text that was streamed before does not heal it."""
    events = stream(
        {"type": "response.output_text.delta", "delta": "Half"},
        {"type": f"response.{kind}", "response": {"object": "response", "output": []}},
    )

    assert shortfall(responses.document_of(events)) is not None


def test_an_error_event_after_half_a_text_is_the_document() -> None:
    """It keeps the status and the headers that it carries."""
    error = {
        "type": "error",
        "error": {"type": "usage_limit_reached"},
        "status_code": 429,
        "headers": {"A": "1"},
    }
    document = responses.document_of(stream({"type": "response.output_text.delta", "delta": "Half"}, error))

    assert document == error


def test_a_flat_error_event_is_wrapped() -> None:
    """OpenAI documents code and message at the top of the event."""
    document = responses.document_of(stream({"type": "error", "code": "server_error", "message": "x"}))

    assert document == {"error": {"code": "server_error", "message": "x"}}


def test_a_responses_stream_cut_before_its_end_is_no_success() -> None:
    """Without a final event nothing is proved."""
    document = responses.document_of(stream({"type": "response.output_text.delta", "delta": "Half a sen"}))

    assert shortfall(document) is not None


EVENTS: Final[dict[str, tuple[str, list[dict[str, Any]]]]] = {
    "line ends of Windows": ('data: {"a": 1}\r\n\r\ndata: {"a": 2}\r\n\r\n', [{"a": 1}, {"a": 2}]),
    "data of several lines": ('data: {"a":\ndata: 1}\n\n', [{"a": 1}]),
    "a comment": (': OPENROUTER PROCESSING\n\ndata: {"a": 1}\n\n', [{"a": 1}]),
    "no space after the colon": ('data:{"a": 1}\n\n', [{"a": 1}]),
    "no empty line at the end": ('data: {"a": 1}', [{"a": 1}]),
    "the name of an event": ('event: ping\ndata: {"a": 1}\n\n', [{"type": "ping", "a": 1}]),
    "the end": ("data: [DONE]\n\n", [{"type": "[DONE]"}]),
    "an event named error": (
        'event: error\ndata: {"code": 1}\n\n',
        [{"type": "error", "error": {"code": 1}}],
    ),
    "a field named error": ('error: {"code": 1}\n\n', [{"type": "error", "error": {"code": 1}}]),
    "a field named error in words": ("error: gone\n\n", [{"type": "error", "error": {"message": "gone"}}]),
    "a byte order mark": ('\ufeffdata: {"a": 1}\n\n', [{"a": 1}]),
    "ids and retries": ('id: 7\nretry: 10\ndata: {"a": 1}\n\n', [{"a": 1}]),
    "nothing": ("", []),
}


@pytest.mark.parametrize(("text", "expected"), EVENTS.values(), ids=EVENTS)
def test_server_sent_events_are_read(text: str, expected: list[dict[str, Any]]) -> None:
    """The forms that providers send yield their JSON objects."""
    assert list(sse_events(text)) == expected


def test_an_event_that_is_no_json_spoils_the_stream() -> None:
    """What cannot be read may have been part of the answer."""
    events = [*stream(delta("Hey")), *sse_events('data: {"choices": [\n\n'), *stream(delta("", "stop"))]

    assert shortfall(chat.document_of(events)) is not None
