"""What can be wrong, or unwise, about the keys of jobs: each told once, at its place, with its mend."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.errors import ConfigError, Fault
from scheduler.config.loader import load

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HEAD = "timezone: UTC\nmodel: openai/gpt-5.5\n"


def faults(tmp_path: Path, text: str) -> list[Fault]:
    """Load a file that has faults, and return them in order of lines."""
    (tmp_path / "promptd.yaml").write_text(HEAD + text)
    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "promptd.yaml", environ={}, now=NOW, strict=True)
    return list(refused.value.faults)


def warnings(tmp_path: Path, text: str) -> list[str]:
    """Load a file without faults, and return its warnings, without the name of the file."""
    (tmp_path / "promptd.yaml").write_text(HEAD + text)
    found = load(tmp_path / "promptd.yaml", environ={}, now=NOW).warnings
    return [warning.removeprefix(f"{tmp_path}/promptd.yaml:") for warning in found]


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ("dst: {gap: run_before}", "dst.gap", "'run_after' or 'skip'"),
        ("dst: {fold: second}", "dst.fold", "'first', 'last' or 'both'"),
        ("dst: skip", "dst", "not a mapping"),
        ("jitter: 5", "jitter", "90s"),
        ("start: tomorrow", "start", "2026-12-01T09:00"),
        ("start: 2026-12-01", "start", "2026-12-01T09:00"),
        ("start: 2026-02-30T09:00", "start", "no day and time that there is"),
        ("end: 0001-01-01T00:00", "end", "2026-12-01T09:00"),
        ("end: 5", "end", "2026-12-01T09:00"),
        ("max_runs: 0", "max_runs", "1 or more"),
        ("concurrency: skip", "concurrency", "'forbid', 'allow', 'queue' or 'replace'"),
        ("on_crash: retry", "on_crash", "'abandon' or 'rerun'"),
        ("retry: 3", "retry", "not a mapping"),
        ("retry: {delays: []}", "retry.delays", "at least 1"),
        ("retry: {delays: [5]}", "retry.delays[0]", "90s"),
        ("retry: {on: [flaky]}", "retry.on[0]", "connection"),
        ("retry: {max: -1}", "retry.max", "0 or more"),
        ("condition: test -f x", "condition", "write its words as a list"),
        ("condition: {command: []}", "condition.command", "names no program"),
        ("condition: {command: [ls], max_bytes: 5}", "condition.max_bytes", "not a key"),
        ("max_tokens_per_day: 0", "max_tokens_per_day", "1 or more"),
        ("silent_when: '{{ output }}'", "silent_when", "without braces"),
        ("silent_when: answer == 1", "silent_when", "there are last_output, output"),
        ("pause_after_failures: 0", "pause_after_failures", "1 or more"),
        ("pause_after_failures: never", "pause_after_failures", "not a whole number"),
        ("after: [nobody]", "after[0]", "not there"),
        ("after: a", "after", "not a list"),
        ("after: [a]", "after[0]", "closes a circle, a after a"),
        ("prompt_file: p.md", "prompt_file", "says again what prompt says"),
        ("system_file: nowhere.md", "system_file", "nowhere.md does not exist"),
    ],
)
def test_one_mistake_in_a_job_is_one_fault(tmp_path: Path, keys: str, key: str, words: str) -> None:
    (tmp_path / "p.md").write_text("hi")
    written = f"jobs:\n  - name: a\n    schedule: '@daily'\n    prompt: hi\n    {keys}\n"

    (fault,) = faults(tmp_path, written)

    assert (fault.line, fault.key) == (7, f"jobs[0].{key}")
    assert words in str(fault)


def test_of_a_list_of_schedules_each_wrong_line_is_told(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        "jobs:\n  - name: a\n    prompt: hi\n    schedule:\n    - '@daily'\n    - '61 * * * *'\n    - noon\n",
    )

    assert [(fault.line, fault.key) for fault in found] == [
        (8, "jobs[0].schedule[1]"),
        (9, "jobs[0].schedule[2]"),
    ]


def test_an_end_lies_behind_the_start_wherever_it_is_written(tmp_path: Path) -> None:
    (fault,) = faults(
        tmp_path,
        "defaults: {end: '2026-08-01T00:00'}\n"
        "jobs: [{name: a, schedule: '@daily', prompt: hi, start: '2026-08-01T00:00'}]\n",
    )

    assert (fault.line, fault.key) == (3, "defaults.end")
    assert "not later than start" in fault.wrong


def test_a_circle_of_jobs_is_told_once_with_everybody_in_it(tmp_path: Path) -> None:
    (fault,) = faults(
        tmp_path,
        "jobs:\n  - {name: a, schedule: null, prompt: x, after: [c]}\n"
        "  - {name: b, schedule: null, prompt: x, after: [a]}\n"
        "  - {name: c, schedule: null, prompt: x, after: [b]}\n"
        "  - {name: d, schedule: null, prompt: x, after: [a, b]}\n",
    )

    assert (fault.line, fault.key) == (5, "jobs[1].after[0]")
    assert "a after c after b after a" in fault.wrong


def test_a_chain_of_as_many_jobs_as_there_are_is_no_circle(tmp_path: Path) -> None:
    text = "".join(
        f"  - {{name: j{n}, schedule: null, prompt: x, after: [{f'j{n - 1}' if n else ''}]}}\n"
        for n in range(3000)
    )

    assert warnings(tmp_path, f"jobs:\n{text}") == []


def test_an_after_for_everybody_is_a_circle(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        "defaults: {after: [a]}\n"
        "jobs: [{name: a, schedule: null, prompt: x}, {name: b, schedule: null, prompt: x}]\n",
    )

    assert [(fault.line, fault.key) for fault in found] == [(3, "defaults.after[0]")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a blank file"),
        (b"{{ nobody }}", "'nobody' is not a name that prompts have"),
        (b"caf\xe9", "is no UTF-8 text in line 1"),
        (b"a\0b", "NUL"),
        (b"x" * 2_000_001, "larger than 2,000,000 bytes"),
        (None, "is not a regular file"),
    ],
)
def test_a_prompt_file_is_looked_at_whole(tmp_path: Path, content: bytes | None, words: str) -> None:
    """A pipe is refused unread: nobody may ever write into it."""
    if content is None:
        os.mkfifo(tmp_path / "p.md")
    else:
        (tmp_path / "p.md").write_bytes(content)

    (fault,) = faults(tmp_path, "jobs: [{name: a, schedule: null, prompt_file: p.md}]\n")

    assert (fault.line, fault.key) == (3, "jobs[0].prompt_file")
    assert words in str(fault)


def test_two_texts_of_one_kind_are_too_many(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("hi")

    found = faults(
        tmp_path,
        "defaults: {system: a, system_file: p.md}\n"
        "jobs: [{name: a, schedule: null, prompt: x, system: b, system_file: p.md}]\n",
    )

    assert [fault.key for fault in found] == ["defaults.system_file", "jobs[0].system_file"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("schedule: at 2020-01-01T00:00", "3:28: jobs[0].schedule: is over: the job is never due again"),
        ("schedule: '@daily', end: '2026-01-01T00:00'", "is over: the job is never due again"),
        ("schedule: null, jitter: 5m", "jobs[0].jitter: does nothing without a schedule"),
        ("schedule: null, max_runs: 5", "jobs[0].max_runs: does nothing without a schedule"),
        ("schedule: every 90s, jitter: 90s", "is not shorter than the 90 s between two instants"),
        (
            "schedule: null, timeout: 5m, retry: {max: 3}",
            "has time for 1 of 3 further tries: the timeout of 300 s is that of the whole run",
        ),
    ],
)
def test_what_works_and_is_not_wise_is_a_warning(tmp_path: Path, keys: str, said: str) -> None:
    (warning,) = warnings(tmp_path, f"jobs: [{{name: a, {keys}, prompt: x}}]\n")

    assert said in warning


def test_what_many_jobs_inherit_is_warned_of_once(tmp_path: Path) -> None:
    jobs = "".join(f"  - {{name: j{n}, schedule: null, prompt: x}}\n" for n in range(3))

    (warning,) = warnings(tmp_path, f"defaults: {{timeout: 1m, retry: {{}}}}\njobs:\n{jobs}")

    assert warning.startswith("3:25: defaults.retry: has time for 0 of 2")
