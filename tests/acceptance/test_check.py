"""`promptd check` says all that is wrong in one go, a line each, and is not to be broken by any file."""

import os
import re

import pytest
from support.workplace import Result, Workplace

LINE = re.compile(r"(?P<file>[^:]+):(?P<line>\d+):(?P<column>\d+): (?P<key>[\w.\[\]-]+): .+; .+")
SIX_MISTAKES = """\
timezone: Europe/Berln
model: opnai/gpt-5.5
limits: {max_concurrent_runs: 0}
providers:
  openai: {credentials: [{label: main, key: OPENAI_API_KEY}]}
jobs:
  - {name: digest, schedule: "0 25 * * *", prompt: "Summarise."}
  - {name: pulse, schedule: every 5m, prompt: "Say something.", promt: "Say it."}
"""

UNREADABLE = {
    "a key without a value": (b"model:\n", ":1:1: model: has no value"),
    "a tab": (b"model: openai/m\njobs:\n\t- {name: a}\n", ":3:1: a tab is used to indent"),
    "a key written twice": (b"model: openai/m\nmodel: zai/m\n", ":2:1: model: is written twice"),
    "five megabytes": (b"model: openai/m\n#" + b"x" * 5_000_000, ": is larger than 4 MiB"),
    "aliases of aliases": (
        b"a: &a [x, x, x, x, x, x, x, x, x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 9)) for n in b"bcdefghij"),
        ":1:4: aliases repeat too much",
    ),
    "an alias inside itself": (b"model: &m [*m]\n", ":1:8: an alias contains itself"),
    "brackets without end": (b"model: " + b"[" * 50_000, ":1:70: is nested more than 64 deep"),
    "a number without end": (b"model: " + b"9" * 100_000, ":1:8: model: is not a number"),
    "an object of Python": (b"model: !!python/name:os.abort\n", ":1:8: model: carries a YAML tag"),
    "zeros": (bytes(4096), ":1:1: holds characters that are no text"),
    "noise": (b"\xff\xfe\xfd" + bytes(range(256)) * 16, ":1:1: is not UTF-8 text"),
    "nothing": (b"", ":1:1: is empty"),
}


def told(result: Result) -> list[str]:
    """Return the lines that a check printed; it must have refused, and without a traceback."""
    assert result.code == 78, result
    assert "Traceback" not in result.out + result.err
    assert result.out == ""
    return result.err.splitlines()


def test_six_mistakes_are_told_in_six_lines_with_file_line_key_and_mend(workplace: Workplace) -> None:
    workplace.config.write_text(SIX_MISTAKES)

    lines = told(workplace.run("check"))

    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), lines
    assert [(one["file"], int(one["line"]), one["key"]) for one in found if one] == [
        (str(workplace.config), 1, "timezone"),
        (str(workplace.config), 2, "model"),
        (str(workplace.config), 3, "limits.max_concurrent_runs"),
        (str(workplace.config), 5, "providers.openai.credentials[0].key"),
        (str(workplace.config), 7, "jobs[0].schedule"),
        (str(workplace.config), 8, "jobs[1].promt"),
    ]
    assert "did you mean Europe/Berlin" in lines[0]
    assert "did you mean openai?" in lines[1]
    assert "did you mean prompt?" in lines[5]


def test_the_same_six_are_told_to_programs(workplace: Workplace) -> None:
    workplace.config.write_text(SIX_MISTAKES)

    result = workplace.run("check", "--json")

    assert result.code == 78
    assert result.json()["ok"] is False
    assert [fault["line"] for fault in result.json()["faults"]] == [1, 2, 3, 5, 7, 8]
    assert all(fault["wrong"] and fault["mend"] for fault in result.json()["faults"])


def test_the_daemon_refuses_to_start_with_the_same_six_lines(workplace: Workplace) -> None:
    workplace.config.write_text(SIX_MISTAKES)

    assert told(workplace.run("start")) == told(workplace.run("check"))


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_broken_file_is_told_in_one_line(workplace: Workplace, name: str) -> None:
    """What hangs or fills the memory on such a file would not end in time."""
    content, wanted = UNREADABLE[name]
    workplace.config.write_bytes(content)

    (line,) = told(workplace.run("check"))

    assert line.startswith(f"{workplace.config}{wanted}")
    assert "; " in line
    assert len(line) < 400


@pytest.mark.parametrize("kind", ["directory", "pipe", "missing"])
def test_what_is_no_file_is_told_in_one_line(workplace: Workplace, kind: str) -> None:
    match kind:
        case "directory":
            workplace.config.mkdir()
        case "pipe":
            os.mkfifo(workplace.config)

    (line,) = told(workplace.run("check"))

    assert str(workplace.config) in line


def test_a_broken_job_file_is_told_beside_the_mistakes_of_the_main_file(workplace: Workplace) -> None:
    jobs = workplace.directory / "jobs.d"
    jobs.mkdir()
    (jobs / "tabs.yaml").write_text("name: a\n\tschedule: every 5m\n")
    (jobs / "zeros.yaml").write_bytes(bytes(100))
    workplace.config.write_text("model: opnai/m\n")

    lines = told(workplace.run("check"))

    places = [":".join(line.split(":")[:2]) for line in lines]
    assert sorted(places, reverse=True) == [
        f"{workplace.config}:1",
        f"{jobs}/zeros.yaml:1",
        f"{jobs}/tabs.yaml:2",
    ]
