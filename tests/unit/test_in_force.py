"""The configuration that is in force goes to another process as it was read, whatever lies on the disk."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.commands import without_secrets
from jobs.errors import ConfigError
from scheduler.config.in_force import handed_over
from scheduler.config.loader import load, load_in_force
from scheduler.config.settings import Settings
from scheduler.reload import applicable, difference

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HEAD = "timezone: UTC\nstate_dir: state\nmodel: openai/gpt-5.5\n"


def read(place: Path, text: str = "", head: str = HEAD) -> Settings:
    (place / "promptd.yaml").write_text(head + text)
    return load(place / "promptd.yaml", environ={"HOME": str(place)}, now=NOW)


def taken_over(place: Path, settings: Settings) -> Settings:
    handed = handed_over(settings)
    return load_in_force(place / "promptd.yaml", handed, environ={"HOME": str(place)}, now=NOW).settings


def test_what_has_become_of_the_files_since_then_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "p.md").write_text("Grüße")
    (tmp_path / "jobs.d" / "b.yaml").write_text("{name: b, schedule: every 1h, prompt: Grüße}\n")
    settings = read(tmp_path, "jobs: [{name: a, schedule: null, prompt_file: p.md}]\n")

    (tmp_path / "p.md").unlink()
    (tmp_path / "jobs.d" / "b.yaml").write_text("[")
    (tmp_path / "jobs.d" / "c.yaml").write_text("{name: c, schedule: null, prompt: x}\n")
    (tmp_path / "promptd.yaml").write_text("database: [")

    taken = taken_over(tmp_path, settings)
    assert list(taken.jobs) == ["a", "b"]
    assert taken.jobs == settings.jobs
    assert replace(taken, registry=settings.registry) == settings


def test_the_files_may_be_gone_altogether(tmp_path: Path) -> None:
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "b.yaml").write_text("{name: b, schedule: every 1h, prompt: x}\n")
    settings = read(tmp_path, "jobs_dir: jobs.d\n")

    for path in (tmp_path / "jobs.d" / "b.yaml", tmp_path / "promptd.yaml"):
        path.unlink()
    (tmp_path / "jobs.d").rmdir()

    assert list(taken_over(tmp_path, settings).jobs) == ["b"]


def test_what_waits_for_a_restart_is_as_it_was_and_all_else_as_it_is(tmp_path: Path) -> None:
    old = read(tmp_path, "secret_key: file:mine\n")
    new = read(
        tmp_path,
        "database: sqlite:///other.db\nsecret_key: file:other\n"
        "jobs: [{name: a, schedule: null, prompt: x}]\n",
        head=HEAD.replace("state\n", "moved\n"),
    )
    in_force, waits = applicable(old, new)

    taken = taken_over(tmp_path, in_force)

    assert set(waits) == {"database", "state_dir", "secret_key"}
    assert (taken.database, taken.state_dir, taken.secret_keys) == (
        old.database,
        old.state_dir,
        old.secret_keys,
    )
    assert list(taken.jobs) == ["a"]


def test_what_was_once_taken_for_a_secret_is_kept_from_commands_by_every_later_configuration(
    tmp_path: Path,
) -> None:
    """Also by processes that carry out what somebody asks for; files of secrets that are named no more go."""
    named = "providers: {zai: {credentials: [{label: a, key: 'env:ZAI'}]}}\nsecret_key: file:mine\n"
    hook = 'delivery: {hook: {webhook: "https://example.org/x", secret: "env:HOOK"}}\n'
    first = read(tmp_path, named + hook)
    second, _ = applicable(first, read(tmp_path, 'delivery: {ops: {apprise: "env:OPS"}}\n'))
    third, _ = applicable(second, read(tmp_path))

    taken = taken_over(tmp_path, third)

    environ = dict.fromkeys(("ZAI", "HOOK", "OPS", "LANG"), "x")
    for settings in (third, taken):
        assert without_secrets(environ, settings.registry, settings.withheld()) == {"LANG": "x"}
    assert {each.scheme for each in third.formerly} == {"env"}


def test_the_texts_of_ten_thousand_jobs_take_little_memory(tmp_path: Path) -> None:
    rows = "".join(
        f"  - {{name: job-{n}, schedule: '{n % 60} * * * *', prompt: 'report {n}'}}\n" for n in range(1000)
    )
    assert len(read(tmp_path, f"jobs:\n{rows}").files) < 200_000 / 10


def test_a_prompt_file_that_is_not_there_keeps_nobody_from_working_but_fails_the_check(
    tmp_path: Path,
) -> None:
    """spec/config.md: it is read at every run, so it may be there by then."""
    settings = read(tmp_path, "jobs:\n  - {name: a, schedule: null, prompt_file: p.md}\n")
    assert list(settings.jobs) == ["a"]
    (warning,) = settings.warnings
    assert "promptd.yaml:5:44: jobs[0].prompt_file: names a file that cannot be used" in warning

    with pytest.raises(ConfigError, match="cannot be used"):
        load(tmp_path / "promptd.yaml", environ={}, now=NOW, strict=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ()),
        ("limits: {keep_runs: 7}\nlogging: {level: debug}\n", ("limits", "logging.level")),
        ("defaults: {timeout: 3m}\nauxiliary: {title: {}}\n", ("auxiliary", "defaults.timeout")),
        ("providers: {openai: {credentials: [{label: b, key: 'env:B'}]}}\n", ("providers",)),
        ("fallback_providers: [zai/glm-5.1]\n", ("model",)),
    ],
)
def test_a_reload_says_what_changed_beside_jobs(tmp_path: Path, text: str, told: tuple[str, ...]) -> None:
    done = difference(read(tmp_path), read(tmp_path, text), ())
    assert done.settings == tuple(done.plain()["settings"]) == told
    assert all(key in str(done) for key in told)
