"""An OpenAI-compatible server that nobody here wrote: it answers, limits and refuses in its own words."""

from collections.abc import Iterator

import pytest
from support import foreign
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: house/good
providers:
  house: {{base_url: "{url}", credentials: [{{label: main, key: "env:HOUSE_KEY"}}]}}
  other-door: {{base_url: "{url}", credentials: [{{label: main, key: "env:HOUSE_KEY"}}]}}
jobs:
  - {{name: pulse, schedule: every 1s, prompt: "Say something.", model: {model}, fallback: [house/good]}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of LiteLLM's proxy, whose upstream for one model refuses the key."""
    with ThreadedLoopback() as upstream:
        upstream.script(
            Endpoint.CHAT, Reply.error(401, code="invalid_api_key", message="Incorrect API key provided.")
        )
        try:
            with foreign.serving(tmp_path_factory.mktemp("foreign"), upstream=upstream.base_url) as url:
                yield url
        except foreign.NotInstalled as exc:
            pytest.skip(f"LiteLLM's proxy cannot be installed: {exc}")


def configure(workplace: Workplace, server: str, model: str) -> None:
    workplace.environ["HOUSE_KEY"] = foreign.KEY
    workplace.configure(CONFIG.format(url=server, model=model))


def test_a_scheduled_prompt_is_answered(workplace: Workplace, server: str) -> None:
    configure(workplace, server, "house/good")

    with workplace.daemon():
        workplace.wait_finished()

    run = workplace.shown(workplace.finished_runs()[0]["id"])
    assert (run["state"], run["output"], run["fallback"]) == ("succeeded", foreign.ANSWER, False)
    assert run["usage"]["input_tokens"] > 0


def test_its_429_closes_one_model_and_the_next_target_answers(workplace: Workplace, server: str) -> None:
    configure(workplace, server, "house/limited")

    with workplace.daemon():
        workplace.wait_finished()

    run = workplace.shown(workplace.finished_runs()[0]["id"])
    marks = [row for row in workplace.json("auth", "list") if row["scope"] != "credential"]

    assert (run["state"], run["fallback_reason"]) == ("succeeded", "rate_limit")
    assert run["output"] == foreign.ANSWER
    assert {(a["error_class"], a["http_status"]) for a in run["attempts"][:-1]} == {("rate_limit", 429)}
    assert [(mark["model"], mark["status"], mark["reason"]) for mark in marks] == [
        ("limited", "exhausted", "rate_limit")
    ]


def test_its_401_closes_the_credential_and_another_provider_answers(
    workplace: Workplace, server: str
) -> None:
    configure(workplace, server, "other-door/revoked")

    with workplace.daemon():
        workplace.wait_finished()

    run = workplace.shown(workplace.finished_runs()[0]["id"])
    refused, good = workplace.credential("other-door"), workplace.credential("house")

    assert (run["state"], run["fallback_reason"]) == ("succeeded", "auth")
    assert run["output"] == foreign.ANSWER
    assert (run["attempts"][0]["error_class"], run["attempts"][0]["http_status"]) == ("auth", 401)
    assert (refused["status"], refused["reason"]) == ("exhausted", "auth")
    assert refused["attempt_id"] == run["attempts"][0]["id"]
    assert good["status"] == "ok"
