"""Helper tasks, commands and contexts as configuration settles them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.definition import Auxiliary, Command, Job, OnOverflow
from jobs.errors import ConfigError
from scheduler.config.effective import effective
from scheduler.config.loader import load, load_with_origins

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HEAD = "timezone: UTC\nmodel: openai/gpt-5.5\nfallback_providers: [zai/glm]\n"
OWN = "{provider: groq, model: small, fallback_chain: [mistral/m, zai/glm]"


def job(tmp_path: Path, top: str = "", keys: str = "") -> Job:
    """Return the settled job of a file with this section and these keys of the job."""
    file = tmp_path / "promptd.yaml"
    file.write_text(f"{HEAD}{top}\njobs: [{{name: a, schedule: null, prompt: x{keys}}}]\n")
    return load(file, environ={"HOME": str(tmp_path)}, now=NOW).jobs["a"].job


def asked(task: Auxiliary | None) -> list[str]:
    """Return who is asked for a task, in order."""
    assert task is not None
    return [str(target) for target in task.chain]


def fault(tmp_path: Path, keys: str) -> str:
    """Return the one fault that these keys of a job make."""
    with pytest.raises(ConfigError) as refused:
        job(tmp_path, keys=f", {keys}")
    (found,) = refused.value.faults
    return f"{found.key}: {found.wrong}; {found.mend}"


@pytest.mark.parametrize(
    ("task", "chain"),
    [
        ("{}", ["openai/gpt-5.5", "zai/glm"]),
        (OWN + "}", ["groq/small", "mistral/m", "zai/glm", "openai/gpt-5.5"]),
        (OWN + ", fallback_to_main: false}", ["groq/small", "mistral/m", "zai/glm"]),
        ("{fallback_chain: [mistral/m]}", ["mistral/m", "openai/gpt-5.5", "zai/glm"]),
    ],
)
def test_a_task_asks_its_own_targets_then_the_main_chain_and_nobody_twice(
    tmp_path: Path, task: str, chain: list[str]
) -> None:
    made = job(tmp_path, f"auxiliary: {{compression: {task}, title: {task}}}")

    assert asked(made.compression) == asked(made.title) == chain


def test_the_main_chain_of_a_task_is_the_jobs_own(tmp_path: Path) -> None:
    made = job(tmp_path, "auxiliary: {title: {timeout: 9s}}", ", model: xai/grok, fallback: none")

    assert (asked(made.title), made.compression) == (["xai/grok"], None)
    assert made.title is not None
    assert made.title.timeout == timedelta(seconds=9)
    assert [str(target) for target in made.targets] == ["xai/grok"]


@pytest.mark.parametrize(
    ("top", "keys", "settled"),
    [
        ("", "", OnOverflow.FAIL),
        ("auxiliary: {compression: {}}", "", OnOverflow.COMPRESS),
        ("auxiliary: {title: {}}", "", OnOverflow.FAIL),
        ("", ", on_overflow: compress", OnOverflow.FAIL),
        ("auxiliary: {compression: {}}", ", on_overflow: truncate", OnOverflow.TRUNCATE),
        ("auxiliary: {compression: {}}", ", on_overflow: fail", OnOverflow.FAIL),
        ("defaults: {on_overflow: truncate}", "", OnOverflow.TRUNCATE),
    ],
)
def test_a_job_compresses_where_it_may_and_somebody_can(
    tmp_path: Path, top: str, keys: str, settled: OnOverflow
) -> None:
    made = job(tmp_path, top, keys)

    assert made.on_overflow is settled
    assert (made.compression is not None) == (settled is OnOverflow.COMPRESS)


@pytest.mark.parametrize(
    ("gather", "command"),
    [
        ("{command: [ls, -l]}", Command(("ls", "-l"))),
        ('{shell: true, command: "ls | wc"}', Command(("ls | wc",), shell=True)),
        ('{command: "ls | wc", shell: true}', Command(("ls | wc",), shell=True)),
        (
            "{command: [ls], timeout: 5m, max_bytes: 64KiB}",
            Command(("ls",), timeout=timedelta(minutes=5), max_bytes=65536),
        ),
        ("{command: [ls], max_bytes: 1500}", Command(("ls",), max_bytes=1500)),
        ("{command: [ls], max_bytes: 2MB}", Command(("ls",), max_bytes=2_000_000)),
    ],
)
def test_a_command_is_a_list_of_words_or_a_text_for_the_shell(
    tmp_path: Path, gather: str, command: Command
) -> None:
    assert job(tmp_path, keys=f", gather: {gather}").gather == command


@pytest.mark.parametrize(
    ("gather", "said"),
    [
        ("{command: ls -l}", "jobs[0].gather.command: is one text; write its words as a list"),
        ("{shell: true, command: [ls]}", "jobs[0].gather.command: is a list of words"),
        ("{command: []}", "jobs[0].gather.command: names no program"),
        ("{command: ['  ']}", "jobs[0].gather.command: names no program"),
        ('{command: [ls, "a\\0b"]}', "jobs[0].gather.command[1]: holds a NUL character"),
        ("{command: [head, 5]}", "jobs[0].gather.command[1]: is not text; put the value in quotes"),
        ("{}", "jobs[0].gather.command: is missing"),
        ("5", "jobs[0].gather: is not a mapping"),
        ("ls -l", "jobs[0].gather: is one text; write its words as a list"),
        ("{command: [ls], max_bytes: 3MB}", "jobs[0].gather.max_bytes: is not a size"),
        ("{command: [ls], max_bytes: 0}", "jobs[0].gather.max_bytes: is not a size"),
        ("{command: [ls], max_bytes: true}", "jobs[0].gather.max_bytes: is not a size"),
        ("{command: [ls], cwd: /}", "jobs[0].gather.cwd: is not a key"),
    ],
)
def test_a_command_that_cannot_be_is_named(tmp_path: Path, gather: str, said: str) -> None:
    assert said in fault(tmp_path, f"gather: {gather}")


def test_a_command_may_be_its_words_alone(tmp_path: Path) -> None:
    assert job(tmp_path, keys=", gather: [date, -u]").gather == Command(("date", "-u"))


def test_a_context_of_a_job_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert fault(tmp_path, "context_from: [a, b]") == (
        "jobs[0].context_from[1]: names a job that is not there; there are a"
    )


def test_a_context_in_defaults_is_checked_once_and_inherited(tmp_path: Path) -> None:
    assert job(tmp_path, "defaults: {context_from: [a]}").context_from == ("a",)
    with pytest.raises(ConfigError) as refused:
        job(tmp_path, "defaults: {context_from: [gone]}")
    assert [each.key for each in refused.value.faults] == ["defaults.context_from[0]"]


def test_config_show_tells_commands_contexts_and_what_overflows_do(tmp_path: Path) -> None:
    job(tmp_path, keys=", gather: {command: [ls], timeout: 5s}, context_from: [a]")
    file = tmp_path / "promptd.yaml"
    shown = effective(load_with_origins(file, environ={"HOME": str(tmp_path)}, now=NOW))["jobs"]["a"]

    assert shown["gather"]["value"] == {
        "command": ["ls"],
        "shell": False,
        "timeout": 5.0,
        "max_bytes": 200_000,
    }
    assert (shown["context_from"]["value"], shown["on_overflow"]["value"]) == (["a"], "fail")
    assert (shown["context_from"]["from"], shown["on_overflow"]["from"]) == (f"{file}:5", "default")
