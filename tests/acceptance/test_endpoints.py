"""S15: what is two stays two, what is one stays one; and a built-in's alias can be taken on purpose."""

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

DENIED = Reply.error(403, message="not for you")
BALANCE_EMPTY = Reply.error(402, message="Insufficient balance")

SHARED = """
model: {{provider: custom, base_url: "{origin}/one/v1", model: m, api_key_env: SHARED_KEY}}
fallback_providers:
  - {{provider: custom, base_url: "{origin}/two/v1", model: m, api_key_env: SHARED_KEY}}
jobs: [{{name: digest, schedule: null, prompt: "Go."}}]
"""
ACCOUNTS = """
model: {{provider: custom, name: mine, base_url: "{origin}/v1", model: m, api_key_env: MY_KEY}}
fallback_providers:
  - {{provider: custom, name: yours, base_url: "{origin}/v1", model: m, api_key_env: YOUR_KEY}}
jobs: [{{name: digest, schedule: null, prompt: "Go."}}]
"""
ONE = """
model: {{provider: custom, base_url: "http://localhost:{port}/v1", model: m, api_key: some-key}}
fallback_providers:
  - {{provider: Custom, base_url: "HTTP://LOCALHOST:{port}/v1/", model: m, api_key: some-key}}
jobs: [{{name: digest, schedule: null, prompt: "Go."}}]
"""
DISTINCT = """\
state_dir: state
model: {provider: custom, name: box, base_url: "http://one.example/v1", model: m}
fallback_providers:
  - {provider: CUSTOM, name: "Box", OTHER, model: m}
"""
NEW = """
model: kimi/m
fallback_providers: [moonshot/k2]
providers:
  Kimi: {{new: true, base_url: "{first}", credentials: [{{label: main, key: env:HOUSE}}]}}
  moonshot: {{base_url: "{second}"}}
jobs: [{{name: digest, schedule: null, prompt: "Go."}}]
"""


def test_s15_two_endpoints_that_share_host_and_key_are_two_providers(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    """The first one's empty balance closes nothing of the second."""
    workplace.configure(SHARED.format(origin=primary.origin))
    workplace.environ["SHARED_KEY"] = "shared-key"
    primary.script(Endpoint.CHAT, BALANCE_EMPTY, Reply.text("the second"))

    first, second = workplace.ran("job", "run", "digest"), workplace.ran("job", "run", "digest")

    names = [f"custom:http-127-0-0-1-{primary.port}-{path}-v1" for path in ("one", "two")]
    assert [a["provider"] for a in first["attempts"]] == names
    assert [a["recovery"] for a in first["attempts"]] == ["next_target", None]
    assert (second["attempts"][0]["outcome"], second["attempts"][0]["provider"]) == ("passed_over", names[0])
    assert second["served"]["provider"] == names[1]
    assert [workplace.credential(name)["status"] for name in names] == ["exhausted", "ok"]
    assert [request.path.split("/")[1] for request in primary.requests] == ["one", "two", "two"]


def test_s15_two_named_accounts_at_one_address_are_two_providers(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    workplace.configure(ACCOUNTS.format(origin=primary.origin))
    workplace.environ |= {"MY_KEY": "my-key", "YOUR_KEY": "your-key"}
    primary.script(Endpoint.CHAT, BALANCE_EMPTY, key="my-key")

    run = workplace.ran("job", "run", "digest")

    assert (run["served"]["provider"], run["fallback_reason"]) == ("custom:yours", "quota_billing")
    assert workplace.credential("custom:mine")["status"] == "exhausted"
    assert workplace.credential("Custom:Yours".lower())["status"] == "ok"
    assert [request.key for request in primary.requests] == ["my-key", "your-key"]


def test_s15_two_spellings_of_one_endpoint_are_one_target(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    """It is asked once: a second spelling is no second chance."""
    workplace.configure(ONE.format(port=primary.port))
    primary.script(Endpoint.CHAT, DENIED)

    run = workplace.ran("job", "run", "digest")

    assert [(a["error_class"], a["recovery"]) for a in run["attempts"]] == [("permission", "stop")]
    assert len(primary.requests) == 1
    listed = [row["provider"] for row in workplace.json("auth", "list") if row["scope"] == "credential"]
    assert listed == [f"custom:http-localhost-{primary.port}-v1"]


@pytest.mark.parametrize(
    "other",
    ['base_url: "http://two.example/v1"', 'base_url: "http://one.example/v1", api_key: another-key'],
    ids=["another URL", "another key"],
)
def test_s15_one_name_for_two_endpoints_is_a_fault_that_asks_for_two_names(
    workplace: Workplace, other: str
) -> None:
    workplace.config.write_text(DISTINCT.replace("OTHER", other))

    checked, started = workplace.run("check", "--json"), workplace.run("start")

    assert (checked.code, started.code) == (78, 78)
    (fault,) = checked.json()["faults"]
    assert (fault["line"], fault["key"]) == (4, "fallback_providers[0].name")
    assert "custom:box" in fault["wrong"]
    assert "its own name" in fault["mend"]
    assert f"{workplace.config}:4:" in started.err


def test_s15_a_provider_of_ones_own_may_take_a_builtins_alias(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    """The built-in keeps its canonical name, its key and its marks."""
    workplace.configure(NEW.format(first=primary.base_url, second=backup.base_url))
    workplace.environ |= {"HOUSE": "house-key", "MOONSHOT_API_KEY": "moonshot-key"}
    primary.script(Endpoint.CHAT, BALANCE_EMPTY)

    run = workplace.ran("job", "run", "digest")

    assert run["requested"] == {"provider": "kimi", "model": "m"}
    assert run["served"] == {"provider": "moonshot", "model": "k2", "credential": "MOONSHOT_API_KEY"}
    assert [workplace.credential(name)["status"] for name in ("kimi", "moonshot")] == ["exhausted", "ok"]
    assert [(request.key, request.model) for request in primary.requests] == [("house-key", "m")]
    assert [(request.key, request.model) for request in backup.requests] == [("moonshot-key", "k2")]
