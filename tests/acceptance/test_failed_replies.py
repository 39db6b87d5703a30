"""S5, S6: an HTTP 200 that is no answer is no answer, whatever stands in it; the next in the chain answers.

One daemon runs a job per bad reply, each against an endpoint and with a key of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Received, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

HALF = "half an answer"
HTML = b"<!doctype html><title>Just a moment...</title><p>Checking your browser.</p>"
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(message: Any) -> Reply:
    """A chat document with this message in its one choice."""
    return Reply.json(200, {"object": "chat.completion", "choices": [{"index": 0, "message": message}]})


def status(word: str, code: str | None = None, text: str = HALF) -> Reply:
    """A Responses document with this status, and some output in it."""
    return Reply.responses_status(word, code=code, output_text=text)


def with_error(text: str) -> Reply:
    """A Responses document that says both `completed` and an error."""
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    error = {"code": "rate_limit_exceeded", "message": "scripted"}
    return Reply.json(200, {"object": "response", "status": "completed", "error": error, "output": [said]})


@dataclass(frozen=True)
class Case:
    """A reply, the class it must get, and how often the endpoint is asked before it is left."""

    reply: Reply
    error_class: str
    requests: int = 2


RESPONSES = {
    "failed": Case(status("failed"), "invalid_response"),
    "failed-quota": Case(status("failed", "rate_limit_exceeded"), "rate_limit", 1),
    "failed-server": Case(status("failed", "server_error"), "server_error", 3),
    "cancelled": Case(status("cancelled"), "invalid_response"),
    "cancelled-quota": Case(status("cancelled", "rate_limit_exceeded"), "rate_limit", 1),
    "incomplete": Case(status("incomplete"), "invalid_response"),
    "incomplete-odd": Case(status("incomplete", "lost_interest"), "invalid_response"),
    "incomplete-filter": Case(status("incomplete", "content_filter"), "content_filter", 1),
    "queued": Case(status("queued"), "invalid_response"),
    "in-progress": Case(status("in_progress"), "invalid_response"),
    "completed-empty": Case(status("completed", text=" \n"), "invalid_response"),
    "completed-error": Case(with_error(HALF), "rate_limit", 1),
}
CHATS = {
    "error-object": Case(Reply.error(200, message="odd"), "invalid_response"),
    "error-text": Case(Reply.json(200, {"error": "odd"}), "invalid_response"),
    "error-beside-text": Case(
        Reply.json(200, {"error": {"message": "odd"}, "choices": [{"message": {"content": HALF}}]}),
        "invalid_response",
    ),
    "error-with-code": Case(Reply.error(200, code="rate_limit_exceeded"), "rate_limit", 1),
    "no-choices": Case(Reply.json(200, {"object": "chat.completion", "choices": []}), "invalid_response"),
    "null-choices": Case(Reply.json(200, {"object": "chat.completion", "choices": None}), "invalid_response"),
    "without-choices": Case(Reply.json(200, {}), "invalid_response"),
    "hollow-choice": Case(Reply.json(200, {"choices": [{}]}), "invalid_response"),
    "not-json": Case(Reply.raw(200, {"content-type": "text/plain"}, b"All quiet."), "invalid_response"),
    "half-json": Case(
        Reply.raw(200, {"content-type": "application/json"}, b'{"choices": [{"mess'), "invalid_response"
    ),
    "json-text": Case(Reply.json(200, "All quiet."), "invalid_response"),
    "no-body": Case(Reply.raw(200, {"content-type": "application/json"}), "invalid_response"),
    "html": Case(Reply.raw(200, {"content-type": "text/html"}, HTML), "invalid_response"),
    "html-as-json": Case(Reply.raw(200, {"content-type": "application/json"}, HTML), "invalid_response"),
    "html-403": Case(Reply.raw(403, {"content-type": "text/html"}, HTML), "invalid_response"),
    "empty": Case(Reply.text(""), "invalid_response"),
    "blank": Case(Reply.text(" \n\t "), "invalid_response"),
    "null-content": Case(chat({"role": "assistant", "content": None}), "invalid_response"),
    "only-a-call": Case(
        chat({"role": "assistant", "content": None, "tool_calls": [CALL]}), "invalid_response"
    ),
}
CASES = {**RESPONSES, **CHATS}


@dataclass(frozen=True)
class Seen:
    """The first run of each job, and what the two servers received for it."""

    runs: dict[str, Any]
    primary: list[Received]
    backup: list[Received]
    answers: list[str | None]

    def requests(self, case: str) -> tuple[list[Received], list[Received]]:
        """Return what the bad endpoint and the good one were asked in the first run of a case."""
        run = self.runs[case]
        prompt = f"{run['job']} {datetime.fromisoformat(run['scheduled_for'])}"
        bad, good = ([r for r in server if r.prompt == prompt] for server in (self.primary, self.backup))
        return bad, good


def configuration(primary: ThreadedLoopback, backup: ThreadedLoopback) -> str:
    lines = ["timezone: UTC", "jobs:"]
    for case in CASES:
        mode = "responses" if case in RESPONSES else "chat_completions"
        bad = (
            f'{{provider: custom, name: {case}, base_url: "{primary.origin}/{case}/v1", model: large, '
            f"api_mode: {mode}, api_key: key-of-{case}}}"
        )
        good = (
            f'{{provider: custom, name: backup, base_url: "{backup.base_url}", model: small, '
            "api_key: key-of-backup}"
        )
        prompt = 'schedule: every 1s, max_runs: 1, prompt: "{{ job }} {{ scheduled_for }}"'
        lines.append(
            f"  - {{name: {case}, {prompt}, fallback_on: [content_filter], model: {bad}, fallback: [{good}]}}"
        )
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Run every case once, in one daemon; show them when it has ended."""
    workplace = Workplace(tmp_path_factory.mktemp("failed-replies"))
    with ThreadedLoopback() as primary, ThreadedLoopback() as backup:
        for name, case in CASES.items():
            endpoint = Endpoint.RESPONSES if name in RESPONSES else Endpoint.CHAT
            primary.script(endpoint, case.reply, key=f"key-of-{name}")
        backup.script(Endpoint.CHAT, Reply.text("a whole answer"))
        workplace.configure(configuration(primary, backup))
        with workplace.daemon():
            workplace.wait_first_runs(*CASES, within=600)
        runs = workplace.first_runs(*CASES)
        answers = workplace.rows("SELECT output FROM runs WHERE state = 'succeeded'")
        yield Seen(runs, primary.requests, backup.requests, [row["output"] for row in answers])


@pytest.mark.parametrize("case", CASES)
def test_a_reply_that_is_no_answer_is_answered_by_the_next_in_the_chain(seen: Seen, case: str) -> None:
    """S5, S6: the class decides how often it is asked again; then the fallback answers, once."""
    run, wanted = seen.runs[case], CASES[case]
    *failed, answered = run["attempts"]
    assert (run["state"], run["output"]) == ("succeeded", "a whole answer")
    assert run["served"]["provider"] == "custom:backup"
    assert run["fallback_reason"] == wanted.error_class
    assert [a["error_class"] for a in failed] == [wanted.error_class] * wanted.requests
    assert [a["recovery"] for a in failed] == ["retry"] * (wanted.requests - 1) + ["next_target"]
    assert {a["provider"] for a in failed} == {f"custom:{case}"}
    assert (answered["outcome"], answered["target_index"]) == ("succeeded", 1)


@pytest.mark.parametrize("case", CASES)
def test_every_attempt_is_one_request_with_its_own_key(seen: Seen, case: str) -> None:
    bad, good = seen.requests(case)
    assert [request.key for request in bad] == [f"key-of-{case}"] * CASES[case].requests
    assert {request.path.split("/")[1] for request in bad} == {case}
    assert {request.model for request in bad} == {"large"}
    assert [(request.key, request.model) for request in good] == [("key-of-backup", "small")]


def test_no_run_succeeded_with_anything_but_the_whole_answer(seen: Seen) -> None:
    """Half an answer beside a failed status is not kept, and nothing empty passes."""
    assert set(seen.answers) == {"a whole answer"}


def test_a_code_inside_a_good_status_is_told_with_the_real_status(seen: Seen) -> None:
    (failed, _answered) = seen.runs["failed-quota"]["attempts"]
    assert (failed["http_status"], failed["code"]) == (200, "rate_limit_exceeded")
