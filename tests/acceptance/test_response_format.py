"""`parameters.response_format`: what succeeds is JSON that fits; what does not is repaired once, or fails."""

import json
from typing import Any

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Received, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: {{provider: custom, name: first, base_url: "{first}", model: a, api_key: key-1, api_mode: {mode}}}
fallback_providers: [{{provider: custom, name: second, base_url: "{second}", model: b, api_key: key-2}}]
defaults:
  system: You count.
  parameters:
    max_output_tokens: 50
    response_format:
      title: Count
      type: object
      required: [n]
      properties: {{n: {{type: integer}}}}
jobs:
  - {{name: count, schedule: null, prompt: "How many?"}}
  - {{name: whole, schedule: null, prompt: "How many?", on_truncated: fail}}
  - name: words
    schedule: null
    prompt: "How many?"
    parameters: {{response_format: {{type: object, additionalProperties: {{type: string}}}}}}
  - {{name: odd, schedule: null, prompt: '{{{{ "\\ud800" }}}}', parameters: {{}}}}
  - {{name: free, schedule: null, prompt: "How many?", parameters: {{}}}}
"""
GOOD, BAD = Reply.text('{"n": 3}', usage=(10, 4)), Reply.text('{"n": "three"}', usage=(10, 5))
DOWN = Reply.error(401, code="invalid_api_key")


@pytest.fixture(params=["chat_completions", "responses"])
def house(
    request: pytest.FixtureRequest, workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> Workplace:
    """A workplace whose primary speaks one interface, then the other."""
    workplace.configure(CONFIG.format(first=primary.base_url, second=backup.base_url, mode=request.param))
    return workplace


def script(server: ThreadedLoopback, *replies: Reply) -> None:
    """Answer these in either interface."""
    for endpoint in (Endpoint.CHAT, Endpoint.RESPONSES):
        server.script(endpoint, *replies)


def schema_in(received: Received) -> Any:
    """Return what a request says of the schema, in the shape of its interface."""
    asked = received.document()
    if received.endpoint is Endpoint.CHAT:
        return asked["response_format"]["json_schema"]
    return asked["text"]["format"]


def conversation(received: Received) -> list[tuple[str, str]]:
    """Return who said what, in either interface, without the instructions."""
    turns = received.document().get("messages") or received.document()["input"]
    spoken = [turn for turn in turns if turn["role"] != "system"]
    texts = (t["content"] if isinstance(t["content"], str) else t["content"][0]["text"] for t in spoken)
    return [(turn["role"], text) for turn, text in zip(spoken, texts, strict=True)]


def test_an_answer_that_fits_is_the_json_alone(house: Workplace, primary: ThreadedLoopback) -> None:
    script(primary, Reply.text('```json\n{"n": 3}\n```'))

    run = house.ran("job", "run", "count")

    assert (run["state"], run["output"], run["fallback"]) == ("succeeded", '{"n": 3}', False)
    (asked,) = primary.requests
    sent = schema_in(asked)
    assert (sent["name"], sent["schema"]["required"]) == ("Count", ["n"])


def test_what_does_not_fit_is_shown_to_its_model_once_with_what_is_wrong(
    house: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    script(primary, BAD, GOOD)

    run = house.ran("job", "run", "count")

    assert (run["state"], run["output"], run["fallback"]) == ("succeeded", '{"n": 3}', False)
    assert [(a["purpose"], a["outcome"]) for a in run["attempts"]] == [
        ("main", "succeeded"),
        ("repair", "succeeded"),
    ]
    assert run["usage"] == {"input_tokens": 20, "output_tokens": 9}
    _, repair = primary.requests
    asked, own, remark = conversation(repair)
    assert (asked, own) == (("user", "How many?"), ("assistant", '{"n": "three"}'))
    assert "$.n: 'three' is not of type 'integer'" in remark[1]
    assert schema_in(repair) == schema_in(primary.requests[0])
    assert backup.requests == []


def test_a_repair_that_does_not_fit_either_fails_the_run_and_keeps_the_answer(
    house: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    script(primary, BAD, Reply.text("I am sorry."))

    result = house.run("job", "run", "count", "--json")

    run = result.json()
    assert (result.code, run["state"], run["reason"]) == (1, "failed", "schema")
    assert (run["output"], run["served"]) == ("I am sorry.", None)
    assert "$: no JSON: Expecting value" in run["error"]["message"]
    assert (len(primary.requests), backup.requests) == (2, [])
    assert [a["recovery"] for a in run["attempts"]] == [None, None]


def test_a_repair_never_goes_back_behind_the_target_that_answered(
    house: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    """The primary would be well again by now."""
    script(primary, DOWN, GOOD)
    script(backup, BAD, GOOD)

    run = house.ran("job", "run", "count")

    assert (run["state"], run["served"]["provider"]) == ("succeeded", "custom:second")
    assert (run["fallback"], run["fallback_reason"]) == (True, "auth")
    assert [(a["purpose"], a["target_index"]) for a in run["attempts"]] == [
        ("main", 0),
        ("main", 1),
        ("repair", 1),
    ]
    assert len(primary.requests) == 1


def test_a_repair_falls_back_like_any_call(
    house: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    """The fallback is shown what the primary had said, and the run says why it was asked."""
    script(primary, BAD, DOWN)
    script(backup, GOOD)

    run = house.ran("job", "run", "count")

    assert (run["state"], run["output"]) == ("succeeded", '{"n": 3}')
    assert (run["served"]["provider"], run["fallback_reason"]) == ("custom:second", "auth")
    assert conversation(backup.requests[0])[1] == ("assistant", '{"n": "three"}')
    assert "key-1" not in json.dumps(backup.requests[0].document())


def test_a_repair_that_nobody_can_do_fails_with_both_causes(
    house: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    script(primary, BAD, DOWN)
    script(backup, DOWN)

    run = house.ran("job", "run", "count")

    assert (run["state"], run["reason"], run["output"]) == ("failed", "schema", '{"n": "three"}')
    assert "$.n: 'three' is not of type 'integer'" in run["error"]["message"]
    assert "auth" in run["error"]["message"]
    assert {a["purpose"] for a in run["attempts"][1:]} == {"repair"}


@pytest.mark.parametrize(("job", "reason", "requests"), [("whole", "truncated", 1), ("count", "schema", 2)])
def test_of_a_cut_answer_on_truncated_decides_first(
    house: Workplace, primary: ThreadedLoopback, job: str, reason: str, requests: int
) -> None:
    """`fail` ends it there; `keep` keeps nothing that is not JSON."""
    script(primary, Reply.text('{"n": 3', finish="length"))

    run = house.ran("job", "run", job)

    assert (run["state"], run["reason"], run["truncated"]) == ("failed", reason, True)
    assert (run["output"], len(primary.requests)) == ('{"n": 3', requests)


def test_a_job_without_a_schema_answers_as_it_likes(house: Workplace, primary: ThreadedLoopback) -> None:
    script(primary, Reply.text("three"))

    run = house.ran("job", "run", "free")

    assert (run["state"], run["output"]) == ("succeeded", "three")
    assert not {"response_format", "text"} & primary.requests[0].document().keys()


def test_half_a_character_in_an_answer_is_repaired_like_any_fault(
    house: Workplace, primary: ThreadedLoopback
) -> None:
    """JSON may hold one; neither a request nor a database may."""
    script(primary, Reply.text('{"\\ud800": 1}'), Reply.text('{"\\ud800": 2}'))

    run = house.run("job", "run", "words", "--json").json()

    assert (run["state"], run["reason"], run["output"]) == ("failed", "schema", '{"\\ud800": 2}')
    assert [a["outcome"] for a in run["attempts"]] == ["succeeded", "succeeded"]
    assert "is not of type 'string'" in conversation(primary.requests[1])[2][1]


def test_half_a_character_in_a_prompt_is_replaced(house: Workplace, primary: ThreadedLoopback) -> None:
    script(primary, Reply.text("fine"))

    run = house.ran("job", "run", "odd")

    assert run["state"] == "succeeded"
    assert conversation(primary.requests[0]) == [("user", "\ufffd")]


def test_a_schema_is_shown_with_where_it_is_from(house: Workplace) -> None:
    shown = house.json("config", "show")["jobs"]["count"]["parameters"]

    assert shown["value"]["response_format"]["required"] == ["n"]
