"""S3: what is wrong in the files keeps the daemon down; a secret that cannot be read fails its own runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.workplace import Result, Workplace

from jobs.providers.loopback_replies import Endpoint, Received, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

WRONG = """\
state_dir: state
model: opnai/gpt-5.5
fallback_providers:
  - bare/m
  - {provider: custom, base_url: "localhost:8080/v1", model: m}
providers:
  bare: {base_url: "http://localhost:9/v1"}
"""
WRONG_JOB = "name: digest\nschedule: null\nprompt: Go.\nmodel: zia/glm-5.1\n"
UNREADABLE = """
model: openai/gpt-5.5
fallback_providers: [{{provider: custom, name: backup, base_url: "{server}/backup/v1", model: small}}]
providers:
  openai: {{base_url: "{server}/openai/v1"}}
  openai-codex: {{credentials: [{{label: plan, oauth: {{token_url: "{server}/oauth/token"}}}}]}}
  house: {{base_url: "{server}/house/v1", credentials: [{{label: main, key: "file:house.key"}}]}}
  mixed:
    base_url: {server}/mixed/v1
    credentials: [{{label: gone, key: env:NOT_THERE}}, {{label: there, key: env:MIXED}}]
jobs:
  - {{name: variable-unset, schedule: every 1s, prompt: Go.}}
  - {{name: file-gone, schedule: every 1s, prompt: Go., model: house/m}}
  - {{name: never-logged-in, schedule: every 1s, prompt: Go., model: openai-codex/m}}
  - {{name: allowed, schedule: every 1s, prompt: Go., fallback_on: [config_error]}}
  - {{name: one-of-two, schedule: every 1s, prompt: Go., model: mixed/m}}
  - name: in-the-middle
    schedule: every 1s
    prompt: Go.
    model: mixed/broken
    fallback: [house/m, {{provider: custom, name: backup, base_url: "{server}/backup/v1", model: small}}]
"""
KEYLESS = {"variable-unset": "OPENAI_API_KEY", "file-gone": "house.key", "never-logged-in": "logged in"}


def test_s3_faults_in_the_files_are_named_with_file_line_and_key(workplace: Workplace) -> None:
    """`check` tells all of them in one go, and creates nothing."""
    workplace.config.write_text(WRONG)
    job = workplace.directory / "jobs.d" / "digest.yaml"
    job.parent.mkdir()
    job.write_text(WRONG_JOB)

    checked = workplace.run("check", "--json")

    faults = [(Path(f["file"]), f["line"], f["key"]) for f in checked.json()["faults"]]
    assert checked.code == 78
    assert sorted(faults) == [
        (job, 4, "model"),
        (workplace.config, 2, "model"),
        (workplace.config, 4, "fallback_providers[0]"),
        (workplace.config, 5, "fallback_providers[1].base_url"),
    ]
    said = {(f["line"], f["key"]): f["wrong"] + "; " + f["mend"] for f in checked.json()["faults"]}
    assert "did you mean openai" in said[2, "model"]
    assert "did you mean zai" in said[4, "model"]
    assert "no key is configured for bare" in said[4, "fallback_providers[0]"]
    assert "http://" in said[5, "fallback_providers[1].base_url"]
    assert not (workplace.directory / "state").exists()


@pytest.mark.parametrize("words", [("start",), ("job", "run", "digest"), ("ask", "Go.")])
def test_s3_nothing_starts_on_wrong_files_whatever_the_fallback(
    workplace: Workplace, backup: ThreadedLoopback, words: tuple[str, ...]
) -> None:
    workplace.config.write_text(WRONG.replace("localhost:8080", f"{backup.origin}"))
    (workplace.directory / "jobs.d").mkdir()
    (workplace.directory / "jobs.d" / "digest.yaml").write_text(WRONG_JOB)

    result = workplace.run(*words)

    assert (result.code, result.out, backup.requests) == (78, "", [])
    assert f"{workplace.config}:2:" in result.err
    assert "digest.yaml:4:" in result.err


@dataclass(frozen=True)
class Seen:
    """A daemon with secrets that it cannot read, as it told of itself, and the first runs of its jobs."""

    runs: dict[str, Any]
    log: str
    metrics: str
    status: Any
    checked: Result
    later: Any
    requests: list[Received]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Start without three secrets; put one of them in its place once all jobs have run."""
    workplace = Workplace(tmp_path_factory.mktemp("unreadable"), {"MIXED": "mixed-key"})
    with ThreadedLoopback() as server:
        server.script(Endpoint.CHAT, Reply.error(404, code="model_not_found"), model="broken")
        workplace.configure(UNREADABLE.format(server=server.origin))
        checked = workplace.run("check", "--json")
        with workplace.daemon() as daemon:
            runs = workplace.first_runs(*KEYLESS, "allowed", "one-of-two", "in-the-middle")
            metrics, status, log = daemon.get("/metrics")[1], workplace.json("status"), daemon.log.read_text()
            before = len(server.requests)
            (workplace.directory / "house.key").write_text("house-key\n")
            server.wait_received(1, key="house-key")
            later = workplace.run("job", "run", "file-gone", "--json").json()
        yield Seen(runs, log, metrics, status, checked, later, server.requests[:before])


@pytest.mark.parametrize("job", KEYLESS)
def test_s3_a_primary_without_a_readable_key_fails_its_run_and_the_fallback_is_not_asked(
    seen: Seen, job: str
) -> None:
    run = seen.runs[job]
    assert (run["state"], run["reason"], run["error"]["class"]) == ("failed", "config_error", "config_error")
    assert KEYLESS[job] in run["error"]["message"]
    (attempt,) = run["attempts"]
    assert (attempt["outcome"], attempt["error_class"]) == ("passed_over", "config_error")
    assert (attempt["credential"], attempt["recovery"]) == (None, "stop")
    assert (run["served"], run["output"], run["fallback"]) == (None, None, False)


def test_s3_a_job_may_allow_the_fallback_for_it(seen: Seen) -> None:
    run = seen.runs["allowed"]
    assert (run["state"], run["fallback_reason"]) == ("succeeded", "config_error")
    assert run["served"]["provider"] == "custom:backup"
    assert [a["recovery"] for a in run["attempts"]] == ["next_target", None]


def test_s3_a_fallback_without_a_readable_key_is_passed_over_with_that_reason(seen: Seen) -> None:
    run = seen.runs["in-the-middle"]
    told = [(a["provider"], a["outcome"], a["error_class"], a["recovery"]) for a in run["attempts"]]
    assert told == [
        ("mixed", "failed", "model_not_found", "next_target"),
        ("house", "passed_over", "config_error", "next_target"),
        ("custom:backup", "succeeded", None, None),
    ]
    assert "house.key" in run["attempts"][1]["message"]
    assert run["fallback_reason"] == "model_not_found"


def test_s3_one_readable_credential_is_enough(seen: Seen) -> None:
    run = seen.runs["one-of-two"]
    assert run["served"] == {"provider": "mixed", "model": "m", "credential": "there"}
    assert (run["state"], run["fallback"]) == ("succeeded", False)


def test_s3_no_request_went_out_without_its_own_key(seen: Seen) -> None:
    asked = {(request.path.split("/")[1], request.key) for request in seen.requests}
    assert asked == {("backup", "no-key-required"), ("mixed", "mixed-key")}


def test_s3_check_tells_what_cannot_be_read_and_that_the_files_are_right(seen: Seen) -> None:
    """A built-in's key variables and an `oauth` block count as configured."""
    shape = seen.checked.json()
    assert (seen.checked.code, shape["faults"]) == (1, [])
    unreadable = {(each["provider"], each["source"]) for each in shape["unreadable"]}
    assert {provider for provider, _ in unreadable} == {"house", "mixed", "openai", "openai-codex"}
    assert ("openai", "env:OPENAI_API_KEY") in unreadable


def test_s3_the_daemon_says_it_at_start_in_its_status_and_in_its_figures(seen: Seen) -> None:
    told = {(each["provider"], each["label"]) for each in seen.status["unreadable_credentials"]}
    assert {("openai", "OPENAI_API_KEY"), ("house", "main"), ("openai-codex", "plan")} <= told
    for provider in ("openai", "house", "openai-codex"):
        assert f'promptd_provider_usable_credentials{{provider="{provider}"}} 0.0' in seen.metrics
    assert 'promptd_provider_usable_credentials{provider="mixed"} 1.0' in seen.metrics
    started = seen.log.partition("jobs scheduled")[0]
    for place in ("OPENAI_API_KEY", "house.key", "openai-codex"):
        assert place in started


def test_s3_a_secret_that_comes_back_is_read_without_a_restart(seen: Seen) -> None:
    assert (seen.later["state"], seen.later["served"]["provider"]) == ("succeeded", "house")
