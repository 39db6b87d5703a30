"""Good configuration: what the settled values are, and where each comes from."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.credential import CredentialKind, SecretReference
from jobs.definition import OnTruncated
from jobs.errors import ErrorClass
from scheduler.config.effective import effective
from scheduler.config.json_schema import json_schema
from scheduler.config.loader import load, load_with_origins
from scheduler.config.settings import CatchUp, Limits, Listen, LogFormat, Settings

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
JOB = "jobs: [{name: a, schedule: '@daily', prompt: hi}]\n"
MODEL = "timezone: UTC\nmodel: openai/gpt-5.5\n"


def settings(tmp_path: Path, text: str, **environ: str) -> Settings:
    """Load a configuration file with this text."""
    file = tmp_path / "promptd.yaml"
    file.write_text(text)
    return load(file, environ={"HOME": str(tmp_path / "home"), **environ}, now=NOW)


def chain(loaded: Settings, job: str) -> list[str]:
    """Return the targets of a job as texts."""
    return [str(target) for target in loaded.jobs[job].job.chain]


def test_the_smallest_file_is_enough(tmp_path: Path) -> None:
    """A model and a job are all that must be said."""
    loaded = settings(tmp_path, "model: openai/gpt-5.5\n" + JOB)
    state = tmp_path / "home/.local/state/promptd"
    assert loaded.state_dir == state
    assert loaded.database == f"sqlite:///{state}/promptd.db"
    assert loaded.secret_keys == (SecretReference("file", f"{state}/secret.key"),)
    assert (loaded.limits, loaded.listen, loaded.log_level) == (Limits(), Listen(), "info")
    assert chain(loaded, "a") == ["openai/gpt-5.5"]
    assert loaded.jobs["a"].job.timeout == timedelta(minutes=10)
    assert loaded.warnings == ()


def test_every_section_is_settled(tmp_path: Path) -> None:
    """What is written in full arrives in full."""
    loaded = settings(
        tmp_path,
        MODEL + "database: postgresql+psycopg://u@db/promptd\nstate_dir: state\n"
        "secret_key: [env:NEW, 'file:old.key']\n"
        "limits: {max_concurrent_runs: 4, drain_timeout: 1h30m}\nserver: {listen: '[::1]:0'}\n"
        "logging: {level: debug, format: json}\nauxiliary:\n  compression: {}\n"
        "  title: {provider: OLLAMA, model: qwen3:4b, fallback_chain: [groq/x],\n"
        "    fallback_to_main: no, timeout: 5s}\n",
    )
    assert loaded.database == "postgresql+psycopg://u@db/promptd"
    assert loaded.secret_keys == (
        SecretReference("env", "NEW"),
        SecretReference("file", str(tmp_path / "old.key")),
    )
    assert loaded.limits == Limits(4, timedelta(minutes=90))
    assert loaded.listen == Listen("::1", 0)
    assert (loaded.log_level, loaded.log_format) == ("debug", LogFormat.JSON)
    assert loaded.auxiliary["compression"].chain == ()
    title = loaded.auxiliary["title"]
    assert [str(t) for t in title.chain] == ["ollama/qwen3:4b", "groq/x"]
    assert (title.fallback_to_main, title.timeout) == (False, timedelta(seconds=5))


@pytest.mark.parametrize("listen", ["off", '"off"'])
def test_off_serves_nothing(tmp_path: Path, listen: str) -> None:
    """`off` needs no quotes."""
    assert settings(tmp_path, f"server: {{listen: {listen}}}\n").listen is None


def test_state_lies_where_systemd_says(tmp_path: Path) -> None:
    """`$STATE_DIRECTORY` comes before the XDG directory, and the file before both."""
    environ = {"STATE_DIRECTORY": "/var/lib/promptd:/x", "XDG_STATE_HOME": "/xdg"}
    assert settings(tmp_path, MODEL, **environ).state_dir == Path("/var/lib/promptd")
    assert settings(tmp_path, MODEL, XDG_STATE_HOME="/xdg").state_dir == Path("/xdg/promptd")
    assert settings(tmp_path, MODEL + "state_dir: s\n", **environ).state_dir == tmp_path / "s"
    assert settings(tmp_path, MODEL + "state_dir: ~/s\n").state_dir == tmp_path / "home/s"


def test_the_zone_of_the_machine_is_the_default(tmp_path: Path) -> None:
    """Without a word about it, some zone is there."""
    assert settings(tmp_path, "model: openai/x\n").timezone.key


@pytest.mark.parametrize("spelled", ["zai", "Z.AI", "GLM", "z_ai", "'Z AI'", "zhipu"])
def test_every_spelling_is_one_provider(tmp_path: Path, spelled: str) -> None:
    """However it is spelled, in a target or a job, it is the same provider with the same credentials."""
    text = (
        f"model: {{provider: {spelled}, model: glm}}\nproviders:\n  {spelled}:\n"
        "    credentials: [{label: one, key: env:ONE}, {label: two, key: env:TWO}]\n"
        f"jobs: [{{name: a, schedule: null, prompt: x, model: {{provider: {spelled}, model: other}}}}]\n"
    )
    loaded = settings(tmp_path, text)
    assert [target.provider for target in (*loaded.chain, *loaded.jobs["a"].job.chain)] == ["zai", "zai"]
    assert [c.label for c in loaded.registry.provider(loaded.chain[0].provider).credentials] == ["one", "two"]


def test_chains_are_inherited_replaced_or_none(tmp_path: Path) -> None:
    """A job takes the main fallbacks, none, or its own; its primary stands first and nothing twice."""
    loaded = settings(
        tmp_path,
        MODEL + "fallback_providers: [zai/glm, groq/llama]\njobs:\n"
        "  - {name: plain, schedule: null, prompt: x}\n"
        "  - {name: own, schedule: null, prompt: x, model: groq/llama}\n"
        "  - {name: alone, schedule: null, prompt: x, fallback: none}\n"
        "  - {name: other, schedule: null, prompt: x, fallback: [{provider: kimi, model: k2}]}\n",
    )
    assert [str(t) for t in loaded.chain] == ["openai/gpt-5.5", "zai/glm", "groq/llama"]
    assert chain(loaded, "plain") == ["openai/gpt-5.5", "zai/glm", "groq/llama"]
    assert chain(loaded, "own") == ["groq/llama", "zai/glm"]
    assert chain(loaded, "alone") == ["openai/gpt-5.5"]
    assert chain(loaded, "other") == ["openai/gpt-5.5", "moonshot/k2"]


def test_one_fallback_model_is_a_list_of_one(tmp_path: Path) -> None:
    """The older key with one mapping means the same."""
    loaded = settings(tmp_path, MODEL + "fallback_model: {provider: zai, model: glm}\n")
    assert [str(t) for t in loaded.chain] == ["openai/gpt-5.5", "zai/glm"]


def test_defaults_stand_between_the_job_and_the_built_in(tmp_path: Path) -> None:
    """A job's own key wins, then `defaults`, then what the program says."""
    loaded = settings(
        tmp_path,
        MODEL + "fallback_providers: [zai/glm]\ndefaults:\n  timeout: 3m\n  misfire_grace_time: 1h\n"
        "  model: groq/llama\n"
        "  fallback: none\n  catch_up: none\n  on_truncated: fail\n  fallback_on: [content_filter]\n"
        "  parameters: {temperature: 0, extra_body: {a: null}}\n  timezone: Asia/Tokyo\njobs:\n"
        "  - {name: a, schedule: '@daily', prompt: x}\n"
        "  - {name: b, schedule: '@daily', prompt: x, timeout: 1m, model: xai/grok, fallback: inherit,\n"
        "     catch_up: latest, timezone: Europe/Berlin, parameters: {seed: 1}, enabled: false}\n",
    )
    a, b = loaded.jobs["a"], loaded.jobs["b"]
    assert (a.job.timeout, b.job.timeout, loaded.job_timeout) == (
        timedelta(minutes=3),
        timedelta(minutes=1),
        timedelta(minutes=3),
    )
    assert chain(loaded, "a") == ["groq/llama"]
    assert chain(loaded, "b") == ["xai/grok", "zai/glm"]
    assert (a.catch_up, b.catch_up) == (CatchUp.NONE, CatchUp.LATEST)
    assert (a.timezone.key, b.timezone.key) == ("Asia/Tokyo", "Europe/Berlin")
    assert a.misfire_grace_time == b.misfire_grace_time == timedelta(hours=1)
    assert a.job.on_truncated is OnTruncated.FAIL
    assert a.job.fallback_on == {ErrorClass.CONTENT_FILTER}
    assert (a.job.parameters.temperature, a.job.parameters.extra_body) == (0, {"a": None})
    assert (b.job.parameters.seed, b.job.parameters.temperature) == (1, None)
    assert (a.enabled, b.enabled) == (True, False)


@pytest.mark.parametrize("schedule", ["schedule: null", "schedule:", "schedule: ~"])
def test_a_job_may_have_no_schedule(tmp_path: Path, schedule: str) -> None:
    """An empty schedule is a word: the job is run by hand."""
    loaded = settings(tmp_path, f"{MODEL}jobs:\n  - name: a\n    {schedule}\n    prompt: x\n")
    assert loaded.jobs["a"].schedule is None


def test_custom_targets_are_providers_of_their_own(tmp_path: Path) -> None:
    """Inline endpoints are named by `name` or address, and can be called by that name elsewhere."""
    loaded = settings(
        tmp_path,
        "model: {provider: custom, base_url: 'http://LOCALHOST:8080/v1/', model: m,\n"
        "  api_key: no-key-required}\n"
        "fallback_providers:\n"
        "  - {provider: Custom, name: Box, base_url: http://box/v1, model: m, key_env: BOX}\n"
        "  - custom:box/other\njobs: [{name: a, schedule: null, prompt: x, model: {provider: custom,\n"
        "  base_url: http://localhost:8080/v1, model: n, api_key: no-key-required}}]\n",
    )
    names = [target.provider for target in loaded.chain]
    assert names == ["custom:http-localhost-8080-v1", "custom:box", "custom:box"]
    assert loaded.jobs["a"].job.chain[0].provider == names[0]
    first, second = (loaded.registry.provider(name).credentials[0] for name in names[:2])
    assert first.reference == SecretReference("literal", "no-key-required")
    assert (second.kind, second.reference) == (CredentialKind.KEY, SecretReference("env", "BOX"))


def test_a_literal_that_looks_like_a_key_is_warned_of(tmp_path: Path) -> None:
    """The warning names the place and never the key."""
    key = "sk-abcdefghijklmnopqrstuvwx"
    text = f"model:\n  provider: custom\n  base_url: http://h/v1\n  model: m\n  api_key: {key}\n"
    (warning,) = settings(tmp_path, text).warnings
    assert "promptd.yaml:5:" in warning
    assert "model.api_key" in warning
    assert key not in warning
    assert key not in repr(settings(tmp_path, text))


def test_key_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    """A relative `file:` does not depend on where the daemon was started."""
    text = MODEL + "providers: {openai: {credentials: [{label: a, key: 'file:keys/a'}]}}\n"
    loaded = settings(tmp_path, text)
    (credential,) = loaded.registry.provider(loaded.chain[0].provider).credentials
    assert credential.reference == SecretReference("file", str(tmp_path / "keys/a"))


def test_job_files_lie_beside_the_configuration(tmp_path: Path) -> None:
    """Each file of jobs.d is one job or a list; hidden ones are passed over, other endings are warned of."""
    directory = tmp_path / "jobs.d"
    directory.mkdir()
    (directory / "b.yaml").write_text("name: one\nschedule:\nprompt: x\n")
    (directory / "a.yaml").write_text("- {name: two, schedule: '@daily', prompt: x}\n")
    (directory / ".hidden.yaml").write_text("nonsense")
    (directory / "c.yml").write_text("nonsense")
    (directory / "notes.txt").write_text("nonsense")
    loaded = settings(tmp_path, MODEL + JOB)
    assert list(loaded.jobs) == ["a", "two", "one"]
    assert [warning.partition(": ")[0] for warning in loaded.warnings] == [str(directory / "c.yml")]


def test_ten_thousand_jobs_are_read(tmp_path: Path) -> None:
    """A big file is no special case."""
    jobs = "".join(
        f"  - {{name: job-{n}, schedule: '{n % 60} * * * *', vars: {{n: {n}}},\n"
        f"     prompt: 'say {n} {{{{ vars.n }}}}'}}\n"
        for n in range(10_000)
    )
    loaded = settings(tmp_path, f"{MODEL}jobs:\n{jobs}")
    assert len(loaded.jobs) == 10_000
    assert loaded.jobs["job-61"].job.vars["n"] == 61


def test_the_effective_values_name_their_lines(tmp_path: Path) -> None:
    """Each value is shown with its file and line, or as a default, and no secret among them."""
    file = tmp_path / "promptd.yaml"
    file.write_text(
        MODEL
        + "database: postgresql+psycopg://u:hidden-word@h/x\ndefaults: {timeout: 3m}\n"
        + "providers: {openai: {headers: {X-Key: hidden-word}}}\n"
        + "fallback_model: {provider: custom, base_url: http://h/v1, model: m, api_key: hidden-word}\n"
        + JOB
    )
    shown = effective(load_with_origins(file, environ={"HOME": "/h"}, now=NOW))
    assert "hidden-word" not in json.dumps(shown)
    assert shown["timezone"] == {"value": "UTC", "from": f"{file}:1"}
    assert shown["logging"]["level"] == {"value": "info", "from": "default"}
    assert shown["fallback_providers"]["from"] == f"{file}:6"
    assert shown["jobs"]["a"]["timeout"] == {"value": 180.0, "from": f"{file}:4"}
    assert shown["jobs"]["a"]["model"] == {"value": "openai/gpt-5.5", "from": f"{file}:2"}
    assert shown["jobs"]["a"]["prompt"] == {"value": "hi", "from": f"{file}:7"}
    assert shown["providers"]["openai"]["headers"]["value"] == {"X-Key": "[secret]"}


@pytest.mark.parametrize("secret", ["hunter2222", "p:w@", "T0001ABCD", "lower-case"])
def test_a_command_is_shown_without_the_secrets_of_its_addresses(tmp_path: Path, secret: str) -> None:
    line = (
        "curl 'https://user:hunter2222@x.example/' https://me:p:w@x.example:80/in; "
        'curl "https://hooks.example/in/T0001ABCD?token=lower-case" -d @-'
    )
    words = ["curl", "https://user:hunter2222@x.example/in"]
    text = {"command": line, "shell": True}
    commands = f"gather: {json.dumps(text)}, condition: {json.dumps({'command': words})}"
    file = tmp_path / "promptd.yaml"
    target = f"delivery: {{feed: {json.dumps(text)}}}\n"
    file.write_text(f"{MODEL}{target}jobs: [{{name: a, schedule: null, prompt: x, {commands}}}]\n")
    shown = effective(load_with_origins(file, environ={"HOME": "/h"}, now=NOW))

    assert secret not in json.dumps(shown)
    assert shown["jobs"]["a"]["condition"]["value"]["command"] == [
        "curl",
        "https://user:[secret]@x.example/in",
    ]
    assert "curl 'https://user:[secret]@x.example/' https" in shown["delivery"]["feed"]["command"]["value"]


def test_the_schema_speaks_of_what_people_write() -> None:
    """Durations are texts, null stands nowhere but in a schedule, and unknown keys are refused."""
    schema = json_schema()
    job = schema["$defs"]["JobRow"]
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["additionalProperties"] is False
    assert sorted(job["required"]) == ["name", "schedule"]
    assert "pattern" in job["properties"]["timeout"]
    assert json.dumps(schema).count('"null"') == 1


def test_nothing_heavy_is_imported() -> None:
    """Reading configuration needs neither the SDK nor the database."""
    code = (
        "import sys, scheduler.config.loader, scheduler.config.effective, scheduler.config.json_schema\n"
        "print([m for m in ('openai', 'sqlalchemy', 'alembic', 'httpx2', 'apprise') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
