"""Bad configuration: every fault at once, each with file, line, key and mend, and no secret in any."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jobs.errors import ConfigError, Fault
from scheduler.config.loader import load

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HEAD = "timezone: UTC\nmodel: openai/gpt-5.5\n"
SECRET = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"


def faults(tmp_path: Path, text: str) -> list[Fault]:
    """Load a file that has faults, and return them in order of lines."""
    file = tmp_path / "promptd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(file, environ={"HOME": str(tmp_path)}, now=NOW)
    assert all("\n" not in str(fault) and fault.wrong and fault.mend for fault in refused.value.faults)
    return list(refused.value.faults)


def told(tmp_path: Path, text: str) -> list[tuple[int, str]]:
    """Return line and key of every fault."""
    return sorted((fault.line, fault.key) for fault in faults(tmp_path, text))


def job(keys: str) -> str:
    """Return a file with one job that has these keys besides the required ones."""
    return f"{HEAD}jobs:\n  - name: a\n    schedule: '@daily'\n    prompt: hi\n    {keys}\n"


def test_six_mistakes_are_six_faults(tmp_path: Path) -> None:
    """Mistakes of six kinds, in six sections, are all told in one go."""
    text = (
        "timezone: Europe/Berln\n"
        "model: opnai/gpt-5.5\n"
        "limits: {max_concurrent_runs: lots}\n"
        "providers: {openai: {credentials: [{label: main, key: OPENAI}]}}\n"
        "jobs:\n"
        "  - name: Morning\n"
        "    schedule: '61 * * * *'\n"
        "    prompt: hi\n"
    )
    found = faults(tmp_path, text)
    assert [(fault.line, fault.key) for fault in found] == [
        (1, "timezone"),
        (2, "model"),
        (3, "limits.max_concurrent_runs"),
        (4, "providers.openai.credentials[0].key"),
        (6, "jobs[0].name"),
        (7, "jobs[0].schedule"),
    ]
    assert {fault.file for fault in found} == {tmp_path / "promptd.yaml"}
    assert "Europe/Berlin" in found[0].mend
    assert "openai" in found[1].mend


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("timezone:\n", 1, "timezone", "has no value"),
        ("model: ~\n", 1, "model", "has no value"),
        ("jobs:\n", 1, "jobs", "has no value"),
        ("limits: {drain_timeout: null}\n", 1, "limits.drain_timeout", "has no value"),
        ("providers:\n  zai:\n    api_mode:\n", 3, "providers.zai.api_mode", "has no value"),
        ("auxiliary:\n  title:\n", 2, "auxiliary.title", "has no value"),
        ("- a\n", 1, "", "not a mapping"),
        ("just text\n", 1, "", "not a mapping"),
        ("modell: openai/x\n", 1, "modell", "did you mean model"),
        ("quark: 1\n", 1, "quark", "not a key that is known"),
        ("jobs: {a: 1}\n", 1, "jobs", "not a list"),
        ("jobs: [text]\n", 1, "jobs[0]", "not a mapping"),
        ("server: {listen: 80}\n", 1, "server.listen", "host:port"),
        ("server: {listen: '::1:80'}\n", 1, "server.listen", "host:port"),
        ("server: {listen: 'h:99999'}\n", 1, "server.listen", "host:port"),
        ("server: {listen: '999.1.1.1:80'}\n", 1, "server.listen", "host:port"),
        ("limits: {max_concurrent_runs: 10001}\n", 1, "limits.max_concurrent_runs", "10000 or less"),
        ("limits: {max_concurrent_runs: true}\n", 1, "limits.max_concurrent_runs", "whole number"),
        ("limits: {drain_timeout: 30}\n", 1, "limits.drain_timeout", "90s"),
        ("logging: {level: loud}\n", 1, "logging.level", "'debug'"),
        ("database: sqlite://\n", 1, "database", "sqlite:///FILE"),
        ("database: 'sqlite:///:memory:'\n", 1, "database", "keeps nothing"),
        ("database: mysql://u@h/x\n", 1, "database", "no kind of database"),
        ("jobs_dir: nowhere\n", 1, "jobs_dir", "does not exist"),
        ("secret_key: []\n", 1, "secret_key", "is empty"),
        ("model: gpt-5.5\n", 1, "model", "provider/model"),
        ("model: {provider: openai}\n", 1, "model.model", "is missing"),
        ("model: {provder: openai, model: x}\n", 1, "model.provder", "did you mean provider"),
        ("model: azure/x\n", 1, "model", "providers.azure.base_url"),
        ("model: custom/x\n", 1, "model.base_url", "is missing"),
        (
            "model: {provider: openai, model: x, base_url: http://h/v1}\n",
            1,
            "model.base_url",
            "put it under providers.openai",
        ),
        ("model: {provider: custom, model: x, base_url: h:80}\n", 1, "model.base_url", "http://"),
        (
            "model: {provider: custom, model: x, base_url: http://h, api_key: '${KEY}'}\n",
            1,
            "model.api_key",
            "api_key_env",
        ),
        ("fallback_model: zai/glm\n", 1, "model", "is missing"),
        (
            "model: xai/a\nfallback_model: zai/b\nfallback_providers: [zai/c]\n",
            2,
            "fallback_model",
            "keep fallback_providers",
        ),
        ("providers: {house: {aliases: [h]}}\n", 1, "providers.house", "base_url"),
        ("providers: {custom: {base_url: http://h}}\n", 1, "providers.custom", "cannot be"),
        (
            "providers:\n  zai: {stream: true}\n  GLM: {stream: true}\n",
            3,
            "providers.GLM",
            "one provider, zai",
        ),
        ("auxiliary: {summary: {}}\n", 1, "auxiliary.summary", "not a key"),
        ("auxiliary: {title: {provider: zai}}\n", 1, "auxiliary.title.model", "is missing"),
        (
            "auxiliary: {title: {fallback_to_main: false}}\n",
            1,
            "auxiliary.title.fallback_to_main",
            "nobody to ask",
        ),
        ("defaults: {name: x}\n", 1, "defaults.name", "not a key"),
        (
            "providers: {zai: {errors: [{text: 'a{99999999999999}', class: auth}]}}\n",
            1,
            "providers.zai.errors[0].text",
            "regular expression",
        ),
        *(
            (f"providers: {{zai: {{headers: {{{name}: x}}}}}}\n", 1, f"providers.zai.headers.{name}", words)
            for name, words in (("Host", "itself"), ("AUTHORIZATION", "itself"), ("X Title", "not the name"))
        ),
        (
            'providers: {zai: {headers: {X-A: "caf\u00e9"}}}\n',
            1,
            "providers.zai.headers.X-A",
            "no HTTP header",
        ),
        ('providers: {zai: {headers: {key: "a\\nb"}}}\n', 1, "providers.zai.headers.key", "no HTTP header"),
        ("providers: {zai: {account_header: authorization}}\n", 1, "providers.zai.account_header", "itself"),
        (
            "providers:\n  zai:\n    credentials:\n      - {label: a, key: env:A}\n"
            "      - {label: b, key: env:B, oauth: {}}\n",
            5,
            "providers.zai.credentials[1].key",
            "exactly one",
        ),
        (
            "providers:\n  zai:\n    credentials:\n      - {label: a, key: env:A}\n"
            "      - label: b\n        oauth: {}\n",
            6,
            "providers.zai.credentials[1].oauth",
            "no token_url",
        ),
        (
            "providers:\n  zai:\n    credentials:\n      - {label: a, key: env:A}\n"
            "      - {label: a, key: env:B}\n",
            5,
            "providers.zai.credentials[1].label",
            "share a label",
        ),
        ('state_dir: "a\\0b"\n', 1, "state_dir", "NUL"),
        ("state_dir: ' '\n", 1, "state_dir", "blank"),
    ],
)
def test_one_mistake_is_one_fault(tmp_path: Path, text: str, line: int, key: str, words: str) -> None:
    """Each mistake at the top is told once, at its place, in plain words."""
    (fault,) = faults(tmp_path, text)
    assert (fault.line, fault.key) == (line, key)
    assert words in str(fault)


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ("timeout: 5", "timeout", "90s"),
        ("schedul: x", "schedul", "not a key"),
        ("timezone: Mars/Olympus", "timezone", "not a time zone"),
        ("timezone: europe/berlin", "timezone", "Europe/Berlin"),
        ("timezone: ../../etc/passwd", "timezone", "not a time zone"),
        ("system: '{{ nonsense }}'", "system", "'nonsense'"),
        ("system: '{% if %}'", "system", "not a template"),
        ("system: 'a {{ b'", "system", "not a template"),
        ("tags: x", "tags", "not a list"),
        ("vars: []", "vars", "not a mapping"),
        ("fallback: maybe", "fallback", "inherit, none"),
        ("fallback: [zai]", "fallback[0]", "provider/model"),
        ("fallback: [zia/x]", "fallback[0]", "did you mean zai"),
        ("fallback_on: [nonsense]", "fallback_on[0]", "content_filter"),
        ("catch_up: some", "catch_up", "'latest', 'all' or 'none'"),
        ("parameters: {temperature: hot}", "parameters.temperature", "not a number"),
        ("parameters: {temprature: 1}", "parameters.temprature", "did you mean temperature"),
        ("parameters: {response_format: []}", "parameters.response_format", "not a mapping"),
        ("parameters: {response_format: {type: json_object}}", "parameters.response_format", "schema itself"),
        (
            "parameters: {response_format: {properties: {key: {type: strng}}}}",
            "parameters.response_format.properties.key.type",
            "one of array, boolean",
        ),
        (
            "parameters: {response_format: {required: [a, [b]]}}",
            "parameters.response_format.required[1]",
            "no string",
        ),
        (
            "parameters: {response_format: {items: {$ref: 'https://example.org/a.json'}}}",
            "parameters.response_format.items.$ref",
            "nothing is fetched",
        ),
        (
            "parameters: {max_output_tokens: 100000000000000000000000}",
            "parameters.max_output_tokens",
            "10000000 or less",
        ),
        ("parameters: {extra_body: {model: x}}", "parameters.extra_body.model", "the job's `model`"),
        ("parameters: {extra_body: {a: 1, stream: true}}", "parameters.extra_body.stream", "NAME.stream"),
        ("context_from: [a, a]", "context_from[1]", "listed twice"),
        ('gather: {command: ["a\\0b"]}', "gather.command[0]", "NUL"),
        ("enabled: maybe", "enabled", "true or false"),
        ("model: {provider: zai, model: 5}", "model.model", "in quotes"),
        ("model: {provider: zai, model: x, larger_context: 5}", "model.larger_context", "true or false"),
        ("description:", "description", "has no value"),
    ],
)
def test_one_mistake_in_a_job_is_one_fault(tmp_path: Path, keys: str, key: str, words: str) -> None:
    """A job's mistakes are told with the number of the job."""
    (fault,) = faults(tmp_path, job(keys))
    assert (fault.line, fault.key) == (7, f"jobs[0].{key}")
    assert words in str(fault)


@pytest.mark.parametrize("name", ["Morning", "a_b", "a.b", "ask", "x" * 64, "''", "ä"])
def test_names_of_jobs_are_plain(tmp_path: Path, name: str) -> None:
    """Names are of a-z, 0-9 and hyphens, at most 63 long, and `ask` is taken."""
    text = f"{HEAD}jobs: [{{name: {name}, schedule: null, prompt: x}}]\n"
    assert told(tmp_path, text) == [(3, "jobs[0].name")]


@pytest.mark.parametrize(
    "schedule",
    ["'* * * *'", "'0 0 30 2 *'", "'@reboot'", "every never", "at noon", "at 0001-01-01T00:00+14:00"],
)
def test_schedules_that_cannot_be_are_refused(tmp_path: Path, schedule: str) -> None:
    """A line that is none, or that never comes, is told at the job."""
    text = f"{HEAD}jobs: [{{name: a, schedule: {schedule}, prompt: x}}]\n"
    assert told(tmp_path, text) == [(3, "jobs[0].schedule")]


def test_required_keys_are_asked_for(tmp_path: Path) -> None:
    """A job without name, schedule and prompt lacks three things; a misspelled one lacks none."""
    assert told(tmp_path, HEAD + "jobs: [{}]\n") == [
        (3, "jobs[0].name"),
        (3, "jobs[0].prompt"),
        (3, "jobs[0].schedule"),
    ]
    assert told(tmp_path, HEAD + "jobs: [{name: a, schedule: null, promt: x}]\n") == [(3, "jobs[0].promt")]
    assert told(tmp_path, HEAD + "jobs: [{name: a, schedule: null, promt_file: x}]\n") == [
        (3, "jobs[0].promt_file")
    ]


@pytest.mark.parametrize(
    "text",
    [
        f"secret_key: {SECRET}\n",
        f"secret_key: [{SECRET}]\n",
        f"model: {SECRET}\n",
        f"model: {SECRET}/x\n",
        f"providers: {{zai: {{credentials: [{{label: a, key: {SECRET}}}]}}}}\n",
        f"providers: {{zai: {{credentials: [{{label: {SECRET}!, key: env:A}}]}}}}\n",
        f"providers: {{zai: {{credentials: [{SECRET}]}}}}\n",
        f"providers: {{zai: {{{SECRET}: 1}}}}\n",
        f"providers: {{zai: {{base_url: 'https://me:{SECRET}@h:x/'}}}}\n",
        f"providers: {{zai: {{timeout: {SECRET}}}}}\n",
        f"providers: {{zai: {{strategy: {SECRET}}}}}\n",
        f"model: {{provider: custom, model: x, base_url: http://h, api_key_env: {SECRET}}}\n",
        f"model: {{provider: custom, model: x, base_url: 'http://{SECRET}:{SECRET}/', api_key: {SECRET}}}\n",
        f"model: {{provider: zai, model: x, api_key: {SECRET}}}\n",
        f"database: mysql://u:{SECRET}@h/x\n",
        f"database: 'postgresql+psycopg://u:{SECRET}@h:port/x'\n",
        f"server: {{listen: {SECRET}}}\n",
        f"jobs: [{{name: {SECRET}, schedule: {SECRET}, prompt: x, timezone: {SECRET}}}]\n",
        f"key: {SECRET}: {SECRET}\n",
    ],
)
def test_a_pasted_key_is_never_shown(tmp_path: Path, text: str) -> None:
    """Wherever a key is pasted, the faults speak of the place and not of the key."""
    found = faults(tmp_path, text)
    assert not any(SECRET in str(fault) or SECRET[8:] in str(fault) for fault in found)


def test_a_fault_does_not_hide_or_breed_others(tmp_path: Path) -> None:
    """A broken provider is told once, not at each target; what else is wrong is told all the same."""
    text = (
        "model: house/x\n"
        "fallback_providers: [house/y, zai/, nobody/z]\n"
        "providers: {house: {base_url: nonsense}}\n"
        "jobs:\n"
        "  - {name: a, schedule: null, prompt: x, timeout: 5, model: nobody/y}\n"
        "  - {name: b, schedule: 'x', prompt: '{{ y }}'}\n"
    )
    assert told(tmp_path, text) == [
        (2, "fallback_providers[1]"),
        (2, "fallback_providers[2]"),
        (3, "providers.house.base_url"),
        (5, "jobs[0].model"),
        (5, "jobs[0].timeout"),
        (6, "jobs[1].prompt"),
        (6, "jobs[1].schedule"),
    ]


def test_a_job_without_any_model_is_refused(tmp_path: Path) -> None:
    """A chain is never empty."""
    assert told(tmp_path, "jobs: [{name: a, schedule: null, prompt: x}]\n") == [(1, "jobs[0].model")]


def test_one_name_for_two_endpoints_is_refused(tmp_path: Path) -> None:
    """Two custom targets of one name and two addresses are asked for distinct names."""
    text = (
        "model: {provider: custom, name: box, base_url: http://one/v1, model: m}\n"
        "fallback_providers:\n  - {provider: custom, name: Box, base_url: http://two/v1, model: m}\n"
    )
    (fault,) = faults(tmp_path, text)
    assert (fault.line, fault.key) == (3, "fallback_providers[0].name")
    assert "its own name" in fault.mend


def test_faults_of_all_files_come_together(tmp_path: Path) -> None:
    """Job files are checked with the main file; a name that is taken names both places."""
    directory = tmp_path / "jobs.d"
    directory.mkdir()
    (directory / "a.yaml").write_text("name: a\nschedule:\nprompt:\n")
    (directory / "b.yaml").write_text("- name: twin\n  schedule: null\n  prompt: x\n- name: twin\n")
    (directory / "c.yaml").write_text("name: [\n")
    found = faults(tmp_path, HEAD + "jobs: [{name: twin, schedule: null, prompt: x}]\n")
    assert sorted((fault.file.name, fault.line, fault.key) for fault in found) == [
        ("a.yaml", 3, "prompt"),
        ("b.yaml", 1, "[0].name"),
        ("b.yaml", 4, "[1].name"),
        ("b.yaml", 4, "[1].prompt"),
        ("b.yaml", 4, "[1].schedule"),
        ("c.yaml", 2, ""),
    ]
    assert f"{tmp_path / 'promptd.yaml'}:3" in found[1].wrong


SECTIONS = (
    "timezone database state_dir jobs_dir secret_key model fallback_providers auxiliary title providers "
    "delivery alerts",
)
KEYS = (
    "defaults limits server listen logging jobs name schedule prompt vars base_url credentials key errors "
    "deliver heartbeat to on webhook apprise file command headers secret shell",
)
VALUES = (
    "openai zai custom null true 5 1.5 a/b x env:A sk-1234567890123456 @daily '{{' http://h/v1 class text "
    "a.md {job} failure",
)
WORDS = st.sampled_from(" ".join(SECTIONS + KEYS + VALUES).split())
TREES = st.recursive(
    WORDS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
        | st.lists(st.tuples(WORDS, inner), max_size=4, unique_by=lambda pair: pair[0]).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=12,
)


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300
)
@given(
    content=st.binary()
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | TREES.map(str.encode)
)
def test_nothing_but_config_error_is_raised(tmp_path: Path, content: bytes) -> None:
    """Whatever the bytes are, they are a configuration or a list of faults."""
    file = tmp_path / "promptd.yaml"
    file.write_bytes(content)
    try:
        load(file, environ={"HOME": str(tmp_path)}, now=NOW)
    except ConfigError as exc:
        lines = [str(fault) for fault in exc.faults] or ["\n"]
    else:
        lines = []
    assert not any("\n" in line for line in lines)
