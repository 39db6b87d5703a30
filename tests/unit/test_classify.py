"""What an answer means: the order of trust, the shapes of bodies, and the two kinds of endpoints."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.providers.answer import Answer, Origin, TransportFailure, Verdict
from jobs.providers.classify import classify, completion_of
from jobs.providers.rules import Rules

NOW: Final = datetime(2026, 9, 4, 8, tzinfo=UTC)
RULES: Final = Rules.load_builtin()
ZAI_CODE_1113: Final = {"error": {"code": "1113", "message": "Insufficient balance"}}


def verdict(
    status: int,
    body: Any = b"",
    *,
    provider: str = "custom:box",
    headers: Mapping[str, str] | None = None,
    origin: Origin = Origin.MODEL,
    rules: Rules = RULES,
) -> Verdict:
    """Classify an answer; a body that is no bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = Answer(status, headers or {}, raw, origin=origin)
    return classify(answer, ProviderName(provider), rules, now=NOW)


def chat(content: Any, finish: str = "stop") -> dict[str, Any]:
    """Return a chat document with one choice."""
    return {"choices": [{"finish_reason": finish, "message": {"role": "assistant", "content": content}}]}


STATUSES: Final = {
    400: "bad_request",
    401: "auth",
    402: "quota_billing",
    403: "permission",
    404: "unknown",
    408: "server_error",
    409: "server_error",
    410: "unknown",
    413: "payload_too_large",
    418: "unknown",
    422: "bad_request",
    429: "rate_limit",
    500: "server_error",
    502: "server_error",
    503: "overloaded",
    504: "server_error",
    520: "server_error",
    526: "server_error",
    529: "overloaded",
    530: "unknown",
    302: "unknown",
    204: "invalid_response",
}


@pytest.mark.parametrize(("status", "expected"), STATUSES.items())
def test_a_bare_status_has_its_class(status: int, expected: str) -> None:
    """An empty body leaves the status to decide."""
    assert verdict(status).error_class == expected


def test_a_404_with_a_word_about_a_model_is_a_missing_model() -> None:
    """The word tells a missing model from a wrong URL."""
    assert verdict(404, {"error": {"message": "The model x does not exist"}}).error_class == "model_not_found"


def test_a_429_whose_words_say_overload_is_no_rate_limit() -> None:
    """The key is not to blame for a busy server."""
    assert verdict(429, {"message": "engine is currently overloaded"}).error_class == "overloaded"


def test_the_code_is_read_before_the_type_and_the_status() -> None:
    """A code that means something outweighs what type and status say."""
    body = {"error": {"code": "model_not_found", "type": "server_error"}}

    assert verdict(500, body).error_class == "model_not_found"


def test_a_status_repeated_as_code_is_no_code() -> None:
    """Gateways repeat the status; nothing follows from it."""
    assert verdict(402, {"error": {"code": 402, "message": "pay"}}).code is None


def test_numbers_in_an_echoed_prompt_decide_nothing() -> None:
    """Only rules read text, and none of these numbers is the real status."""
    body = {"error": {"message": "could not parse 'HTTP 401 invalid_api_key 1113 insufficient_quota'"}}

    assert verdict(400, body, provider="zai").error_class == "bad_request"


def test_there_is_no_money_rule_for_everybody_on_insufficient_quota() -> None:
    """Alibaba says it for a limit per minute."""
    assert verdict(429, {"error": {"code": "insufficient_quota"}}).error_class == "rate_limit"


SHAPES: Final[dict[str, tuple[Any, str]]] = {
    "list of one": ([ZAI_CODE_1113], "quota_billing"),
    "JSON in a string": (json.dumps(ZAI_CODE_1113), "quota_billing"),
    "error is JSON text": ({"error": json.dumps(ZAI_CODE_1113)}, "quota_billing"),
    "message is JSON text": ({"error": {"message": json.dumps(ZAI_CODE_1113)}}, "quota_billing"),
    "message is an object": ({"message": {"code": 1113, "detail": "x"}}, "quota_billing"),
    "error is a word": ({"error": "1113"}, "rate_limit"),
    "detail is an object": ({"detail": {"code": "1113"}}, "quota_billing"),
    "detail is a list": ({"detail": [{"code": "1113", "msg": "x"}]}, "quota_billing"),
    "flat": ({"object": "error", "code": 1113, "message": "x"}, "quota_billing"),
    "problem+json": ({"type": "about:blank", "title": "Too Many Requests", "status": 429}, "rate_limit"),
    "code beside error": ({"error": {"message": "x"}, "code": "1113"}, "quota_billing"),
    "errors": ({"errors": [{"code": 1113, "message": "x"}]}, "quota_billing"),
    "error is a list": ({"error": [{"code": 1113, "message": "x"}]}, "quota_billing"),
    "error is a list of words": ({"error": ["1113"]}, "rate_limit"),
    "an inner error": ({"error": {"message": "x", "innererror": {"code": "1113"}}}, "quota_billing"),
    "error is true": ({"error": True, "code": "1113", "message": "x"}, "quota_billing"),
    "detail around error": ({"detail": {"error": {"code": "1113"}}}, "quota_billing"),
    "list in a string in a list": ([json.dumps([ZAI_CODE_1113])], "quota_billing"),
    "JSON in JSON in JSON": ({"error": json.dumps({"message": json.dumps(ZAI_CODE_1113)})}, "quota_billing"),
}


@pytest.mark.parametrize(("body", "expected"), SHAPES.values(), ids=SHAPES)
def test_every_shape_of_an_error_body_is_read(body: Any, expected: str) -> None:
    """Providers wrap their errors in many ways; the code is found in each."""
    assert verdict(429, body, provider="zai").error_class == expected


MESSAGES: Final[dict[str, Any]] = {
    "error": {"error": "no such thing"},
    "detail": {"detail": "no such thing"},
    "message": {"message": "no such thing"},
    "detail list": {"detail": [{"loc": ["body"], "msg": "no  such\nthing"}]},
}


@pytest.mark.parametrize("body", MESSAGES.values(), ids=MESSAGES)
def test_the_message_is_found_and_its_whitespace_folded(body: Any) -> None:
    """What the provider said is kept for the log."""
    assert verdict(400, body).message == "no such thing"


def test_a_message_is_cut_at_200_characters() -> None:
    """No body ever reaches a log."""
    assert len(verdict(400, {"error": {"message": "x" * 5000}}).message) == 200


def test_json_in_json_counts_with_the_inner_status() -> None:
    """A gateway's 500 around an upstream's 429 is a rate limit."""
    inner = json.dumps({"error": {"message": "slow", "status": 429}})

    assert verdict(500, {"error": {"message": inner}}).error_class == "rate_limit"


def test_an_error_within_http_200_takes_its_status_from_the_body() -> None:
    """`{"code": 401, "success": false}` is a 401."""
    assert verdict(200, {"code": 401, "success": False, "msg": "no"}).error_class == "auth"
    assert verdict(200, {"code": 401, "choices": None, "msg": "no"}).error_class == "auth"
    assert verdict(200, {"object": "response", "code": 401, "output": []}).error_class == "auth"


EVENT_BODIES: Final[dict[str, tuple[int, str, str]]] = {
    "an error event": (200, 'event: error\ndata: {"code": "1113"}\n\n', "quota_billing"),
    "an error event without its blank line": (429, 'event: error\ndata: {"code": "1113"}', "quota_billing"),
    "a field named error": (
        200,
        'data: {"choices": []}\n\nerror: {"error": {"code": "1113"}}\n',
        "quota_billing",
    ),
    "a comment first": (
        200,
        ': PROCESSING\r\n\r\ndata: {"error": {"code": "1113"}}\r\n\r\n',
        "quota_billing",
    ),
    "a flat document": (200, 'data: {"object": "error", "code": 1113, "message": "x"}\n\n', "quota_billing"),
    "a status inside": (200, 'data: {"error": {"message": "x"}, "status_code": 429}\n\n', "rate_limit"),
    "words in a field named error": (503, "error: come back later\n", "overloaded"),
    "events without an error": (200, 'data: {"choices": []}\n\n', "invalid_response"),
}


@pytest.mark.parametrize(("status", "body", "expected"), EVENT_BODIES.values(), ids=EVENT_BODIES)
def test_events_where_a_document_was_expected_are_read(status: int, body: str, expected: str) -> None:
    """With an error status nobody reads a stream, and some gateways name no content type."""
    assert verdict(status, body.encode(), provider="zai").error_class == expected


def test_events_from_a_token_endpoint_are_no_json() -> None:
    """They prove no death: what is not JSON leaves the login as it is."""
    result = verdict(401, b'error: {"error": "invalid_grant"}', origin=Origin.TOKEN)

    assert result.error_class == "auth_unavailable"


def test_headers_inside_an_event_count_as_headers() -> None:
    """The HTTP answer was sent before anybody knew."""
    body = {
        "error": {"message": "x"},
        "status": 429,
        "headers": {"Retry-After": 7, "X-Should-Retry": "false"},
    }
    result = verdict(200, body)

    assert result.wait is not None
    assert (result.wait.until, result.should_retry) == (NOW + timedelta(seconds=7), False)


@pytest.mark.parametrize("order", [True, False])
def test_an_order_about_retrying_stands_in_the_verdict(order: bool) -> None:
    """It does not change the class."""
    result = verdict(500, headers={"x-should-retry": str(order).lower()})

    assert (result.error_class, result.should_retry) == (ErrorClass.SERVER_ERROR, order)
    assert verdict(500).should_retry is None


def test_the_meaning_may_stand_in_the_headers_alone() -> None:
    """An empty body, and a window that is used up."""
    headers = {"x-codex-primary-used-percent": "100", "x-codex-primary-reset-after-seconds": "60"}
    result = verdict(429, provider="openai-codex", headers=headers)

    assert (result.error_class, result.wait and result.wait.until) == (
        ErrorClass.QUOTA_WINDOW,
        NOW + timedelta(minutes=1),
    )


def test_an_html_page_with_403_is_no_refusal_of_the_key() -> None:
    """An edge's challenge page says nothing about permissions."""
    result = verdict(403, b"<!DOCTYPE html><html><title>Just a moment...</title></html>")

    assert (result.error_class, result.message) == (ErrorClass.INVALID_RESPONSE, "Just a moment...")


NO_ANSWERS: Final[dict[str, Any]] = {
    "no JSON": b"Hello",
    "HTML": b"<html>welcome</html>",
    "empty": b"",
    "no choices": {"id": "x"},
    "empty choices": {"choices": []},
    "null": b"null",
    "empty text": chat(""),
    "blank text": chat(" \n"),
    "only tool calls": {"choices": [{"message": {"content": None, "tool_calls": [{"id": "1"}]}}]},
    "error object that nobody knows": {**chat("text"), "error": {"message": "?"}},
    "too deep": b"[" * 100_000,
    "an integer of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "not UTF-8": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("body", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_a_200_that_proves_no_answer_is_an_invalid_response(body: Any) -> None:
    """A run is never succeeded with an empty answer."""
    assert verdict(200, body).error_class == "invalid_response"


def test_a_good_answer_that_quotes_an_error_is_no_error() -> None:
    """Only the document counts, not what the model wrote."""
    result = verdict(200, chat(json.dumps(ZAI_CODE_1113)), provider="zai")

    assert (result.error_class, result.rule) == (None, "*/completed")


@pytest.mark.parametrize("finish", ["length", "max_tokens"])
def test_a_stop_because_of_length_is_no_error(finish: str) -> None:
    """It is an outcome: the text is kept."""
    assert verdict(200, chat("half", finish)).error_class is None


@pytest.mark.parametrize(
    "wrap", [lambda it: it, lambda it: [it], json.dumps], ids=["plain", "list", "string"]
)
def test_what_is_no_error_can_be_read_as_a_completion(wrap: Any) -> None:
    """Both read the body in the same way."""
    body = json.dumps(wrap(chat("Hi"))).encode()

    assert verdict(200, body).error_class is None
    assert completion_of(Answer(200, body=body)).text == "Hi"


def test_no_lone_surrogate_leaves_the_room() -> None:
    """A database could not store it; a pair that a stream has cut is joined."""
    broken = verdict(400, {"error": {"message": "a\ud83d", "code": "b\ud83d"}})
    whole = completion_of(Answer(200, body=json.dumps(chat("\ud83d" + "\ude00 \ud83d")).encode()))

    assert (broken.message, broken.code, whole.text) == ("a\ufffd", "b\ufffd", "\U0001f600 \ufffd")


def test_a_content_filter_without_text_is_a_content_filter() -> None:
    """The finish reason is classified like a code."""
    assert verdict(200, chat("", "content_filter")).error_class == "content_filter"


TRANSPORT: Final = {
    TransportFailure.TIMEOUT: ("timeout", "*/timeout"),
    TransportFailure.CONNECTION: ("connection", "*/connection"),
    TransportFailure.TLS: ("connection", "*/tls"),
    TransportFailure.UNSENDABLE: ("config_error", "*/unsendable"),
}


@pytest.mark.parametrize("failure", TransportFailure)
def test_no_answer_at_all_is_a_timeout_or_a_connection(failure: TransportFailure) -> None:
    """A certificate that does not verify is told apart by the rule; what was not sent is our mistake."""
    result = classify(Answer(None, failure=failure), ProviderName("openai"), RULES, now=NOW)

    assert (result.error_class, result.rule) == TRANSPORT[failure]


@pytest.mark.parametrize("failure", TransportFailure)
def test_a_token_endpoint_that_does_not_answer_is_unavailable(failure: TransportFailure) -> None:
    """A lost answer proves no death."""
    answer = Answer(None, failure=failure, origin=Origin.TOKEN)

    assert classify(answer, ProviderName("openai"), RULES, now=NOW).error_class == "auth_unavailable"


TOKEN_ANSWERS: Final[dict[str, tuple[int, Any, str | None]]] = {
    "bare 401": (401, b"", "auth_dead"),
    "401 with JSON": (401, {"message": "no"}, "auth_dead"),
    "invalid_grant": (400, {"error": "invalid_grant"}, "auth_dead"),
    "403 with JSON": (403, {"error": {"code": "some_new_word"}}, "auth_dead"),
    "region": (403, {"error": {"code": "unsupported_country_region_territory"}}, "permission"),
    "HTML 403": (403, b"<html></html>", "auth_unavailable"),
    "HTML 401": (401, b"<html></html>", "auth_unavailable"),
    "408": (408, {"error": "x"}, "auth_unavailable"),
    "429": (429, {"error": "x"}, "auth_unavailable"),
    "500": (500, {"error": "invalid_grant"}, "auth_unavailable"),
    "200 without JSON": (200, b"ok", "auth_unavailable"),
    "200": (200, {"access_token": "x"}, None),
}


@pytest.mark.parametrize(("status", "body", "expected"), TOKEN_ANSWERS.values(), ids=TOKEN_ANSWERS)
def test_a_token_endpoint_has_rules_of_its_own(status: int, body: Any, expected: str | None) -> None:
    """The same 401 means something else there than on a model endpoint."""
    assert verdict(status, body, origin=Origin.TOKEN).error_class == expected


def test_a_hint_is_given_only_where_waiting_helps() -> None:
    """A `retry-after` beside a bad request is no wait."""
    headers = {"retry-after": "7"}

    limited, wrong = verdict(429, headers=headers), verdict(400, headers=headers)

    assert limited.wait is not None
    assert limited.wait.until == NOW + timedelta(seconds=7)
    assert wrong.wait is None
