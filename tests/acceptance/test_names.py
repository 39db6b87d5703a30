"""S14: one provider however it is spelled: in the configuration, in job files and on the command line."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Received, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

ZAI = (
    "zai", "ZAI", "z.ai", "Z.AI", "z_ai", "z ai", " Z AI ", "z--ai", "z-_.ai", "GLM", "glm", "ＧＬＭ",
    "Zhipu", "ZhipuAI", "BigModel", "ｚａｉ", "Ｚ．ＡＩ", "Ｚ＿ＡＩ", "Z\u3000AI",
)  # fmt: skip
CODEX = (
    "openai-codex", "OpenAI-Codex", "openai_codex", "openai.codex", "OPENAI CODEX", "openai--codex", "codex",
    "Codex", " CODEX ", "chatgpt-codex", "ChatGPT_Codex", "chatgpt.codex",
    "ＣｈａｔＧＰＴ　Ｃｏｄｅｘ", "ｏｐｅｎａｉ．ｃｏｄｅｘ",
)  # fmt: skip
HEAD = """
timezone: UTC
providers:
  "OpenAI Codex":
    base_url: {codex}
    credentials: [{{label: plan, oauth: {{token_url: "{token}"}}}}]
  "Ｚ．ＡＩ": {{base_url: "{zai}"}}
jobs:
"""
BALANCE_EMPTY = Reply.json(429, {"error": {"code": "1113", "message": "Insufficient balance"}})
CASES = {f"pair-{n}": (CODEX[n % len(CODEX)], zai) for n, zai in enumerate(ZAI)}


def job(name: str, codex: str, zai: str) -> str:
    """Return a job; every other one writes its targets as mappings."""
    as_text = int(name.rpartition("-")[2]) % 2 == 0
    model = f'"{codex}/gpt-5.5"' if as_text else f'{{provider: "{codex}", model: gpt-5.5}}'
    fallback = f'"{zai}/glm-5.1"' if as_text else f'{{provider: "{zai}", model: glm-5.1}}'
    once = "schedule: every 1s, max_runs: 1"
    return f"{{name: {name}, {once}, prompt: Go., model: {model}, fallback: [{fallback}]}}"


@dataclass(frozen=True)
class Seen:
    """The first run of each job, and what there was at the end of it all."""

    workplace: Workplace
    runs: dict[str, Any]
    codex: list[Received]
    zai: list[Received]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Run every pair of spellings once: Codex' login has ended, and Z.AI's first key has no balance."""
    workplace = Workplace(
        tmp_path_factory.mktemp("names"),
        {"ZAI_API_KEY": "key-1", "GLM_API_KEY": "key-2", "Z_AI_API_KEY": "key-1"},
    )
    with ThreadedLoopback() as codex, ThreadedLoopback() as zai:
        codex.script(Endpoint.TOKEN, Reply.token_error(401, "invalid_grant"))
        zai.script(Endpoint.CHAT, BALANCE_EMPTY, key="key-1")
        lines = [f"  - {job(name, *pair)}\n" for name, pair in CASES.items()]
        head = HEAD.format(codex=codex.codex_url, token=codex.token_url, zai=zai.base_url)
        workplace.configure(head + "".join(lines[::3]))
        (workplace.directory / "jobs.d").mkdir()
        (workplace.directory / "jobs.d" / "list.yaml").write_text("".join(lines[1::3]))
        for number, line in enumerate(lines[2::3]):
            (workplace.directory / "jobs.d" / f"one-{number}.yaml").write_text(line.removeprefix("  - "))
        workplace.log_in(refresh_token="spent", expires_in=-60)
        with workplace.daemon():
            workplace.wait_first_runs(*CASES, within=600)
        runs = workplace.first_runs(*CASES)
        yield Seen(workplace, runs, codex.requests, zai.requests)


@pytest.mark.parametrize("case", CASES, ids=[f"{codex}-{zai}" for codex, zai in CASES.values()])
def test_s14_every_spelling_in_a_file_is_the_one_provider_and_keys_rotate(seen: Seen, case: str) -> None:
    run = seen.runs[case]
    assert run["state"] == "succeeded"
    assert run["requested"] == {"provider": "openai-codex", "model": "gpt-5.5"}
    assert run["served"] == {"provider": "zai", "model": "glm-5.1", "credential": "GLM_API_KEY"}
    assert run["fallback_reason"] == "auth_dead"
    assert {a["provider"] for a in run["attempts"]} == {"openai-codex", "zai"}


def test_s14_there_is_one_set_of_credentials_and_each_mark_stands_once(seen: Seen) -> None:
    """Two variables with one key in them are one credential, too."""
    known = seen.workplace.rows("SELECT provider, label FROM credentials ORDER BY provider, label")
    assert [(row["provider"], row["label"]) for row in known] == [
        ("openai-codex", "plan"),
        ("zai", "GLM_API_KEY"),
        ("zai", "ZAI_API_KEY"),
    ]
    marks = seen.workplace.rows("SELECT provider, scope, code, step FROM marks ORDER BY provider")
    assert [(m["provider"], m["scope"], m["code"], m["step"]) for m in marks] == [
        ("openai-codex", "credential", "invalid_grant", 1),
        ("zai", "group", "1113", 1),
    ]
    assert {row["provider"] for row in seen.workplace.rows("SELECT provider FROM attempts")} == {
        "openai-codex", "zai",
    }  # fmt: skip


def test_s14_no_key_went_to_the_other_provider(seen: Seen) -> None:
    assert [(request.endpoint, request.key) for request in seen.codex] == [(Endpoint.TOKEN, "spent")]
    assert {request.key for request in seen.zai} == {"key-1", "key-2"}
    assert {request.model for request in seen.zai} == {"glm-5.1"}


@pytest.mark.parametrize("spelled", ["Ｚ．ＡＩ", " z_ai ", "BIGMODEL"])
def test_s14_the_command_line_knows_every_spelling(seen: Seen, spelled: str) -> None:
    (why,) = seen.workplace.json("auth", "why", spelled)
    asked = seen.workplace.ran("ask", "Go.", "--provider", spelled, "--model", "glm-5.1")
    listed = seen.workplace.json("run", "list", "--provider", spelled, "--limit", "1")

    assert (why["provider"], why["label"], why["code"]) == ("zai", "ZAI_API_KEY", "1113")
    assert asked["requested"]["provider"] == asked["served"]["provider"] == "zai"
    assert [(a["credential"], a["outcome"]) for a in asked["attempts"]] == [("GLM_API_KEY", "succeeded")]
    assert [run["id"] for run in listed] == [asked["id"]]


def test_s14_a_reset_under_an_alias_opens_the_one_credential(seen: Seen) -> None:
    lifted = seen.workplace.json("auth", "reset", "ＣｈａｔＧＰＴ_Codex", "plan")

    assert (lifted["provider"], lifted["labels"], lifted["lifted"]) == ("openai-codex", ["plan"], 1)
    assert seen.workplace.credential("openai-codex")["status"] == "ok"


def test_an_unknown_name_is_told_with_the_nearest_one(seen: Seen) -> None:
    result = seen.workplace.run("ask", "Go.", "--provider", "opnai-codex")

    assert (result.code, result.out) == (2, "")
    assert "openai-codex" in result.err
