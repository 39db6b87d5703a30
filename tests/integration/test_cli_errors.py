"""The edge: every error one line and an exit code; nothing heavy imported to print help."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli_ground import World

from jobs.errors import Busy, FenceLost, Unavailable
from jobs.secret import Redactor, Secret
from scheduler.cli import main
from scheduler.cli.edge import exit_code_of

HEAVY = {
    "aiohttp",
    "alembic",
    "apscheduler",
    "cryptography",
    "jinja2",
    "openai",
    "prometheus_client",
    "pydantic",
    "rich",
    "sqlalchemy",
    "starlette",
    "structlog",
    "yaml",
}
ROOT = Path(__file__).parents[2]


def _imported_by(*commands: tuple[str, ...]) -> set[str]:
    """Return what is imported by a process that does these commands, one after the other."""
    code = (
        "import json, sys; from scheduler.cli import main; "
        "codes = [main(each) for each in json.loads(sys.argv[1])]; "
        "print(*sys.modules, file=sys.stderr); sys.exit(max(codes))"
    )
    command = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stderr.split())


def test_help_imports_click_and_nothing_heavy() -> None:
    """`--help` is answered at once, of the program and of every group."""
    groups = ((), ("config",), ("job",), ("run",), ("auth",), ("provider",), ("db",))
    assert not HEAVY & _imported_by(*((*group, "--help") for group in groups))


def test_job_next_imports_no_program_that_runs_prompts(tmp_path: Path) -> None:
    """Asking when is not asking a model, nor migrating."""
    world = World(tmp_path)
    found = _imported_by(("--config", str(world.file), "job", "next", "-n", "1"))
    assert not {"openai", "sqlalchemy.orm", "alembic", "rich", "cryptography"} & found


def test_no_configuration_anywhere_is_exit_78(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line says where was looked, and what to do."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", "list"], environ={"HOME": str(tmp_path)}) == 78
    assert "promptd init" in capsys.readouterr().err


@pytest.mark.parametrize("args", [("bogus",), ("run", "bogus"), ("run", "show"), ("run", "list", "--bogus")])
def test_a_command_that_is_not_there_is_one_line_and_exit_2(tmp_path: Path, args: tuple[str, ...]) -> None:
    """The line names the help that would tell."""
    said = World(tmp_path, migrated=False).run(*args)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "--help`" in said.err


def test_a_file_that_is_no_database_is_exit_69_without_a_traceback(tmp_path: Path) -> None:
    """So is any other trouble of the database."""
    world = World(tmp_path)
    Path(world.settings.database.removeprefix("sqlite:///")).write_text("this is no database" * 100)
    for command in (("run", "list"), ("auth", "reset", "zai"), ("db", "current"), ("db", "upgrade")):
        said = world.run(*command)
        assert (said.code, said.out, said.err.count("\n")) == (69, "", 1), command
        assert "not a database" in said.err


def test_a_database_of_another_revision_is_exit_69_and_says_what_to_do(tmp_path: Path) -> None:
    """Nothing is read from tables that are not understood."""
    world = World(tmp_path)
    with world.ledger() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    said = world.run("run", "list")
    assert (said.code, said.err.count("\n")) == (69, 1)
    assert "start that version, or restore a backup" in said.err
    assert world.run("db", "upgrade").code == 69
    with world.ledger() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    said = world.run("run", "list")
    assert (said.code, said.err.count("\n")) == (69, 1)
    assert "promptd db upgrade" in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("no daemon"), 69),
        (Busy("held"), 75),
        (FenceLost("gone"), 1),
        (sqlite3.OperationalError("disk I/O error"), 69),
        (RuntimeError("unheard of"), 70),
    ],
)
def test_every_error_has_its_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The codes are those of sysexits.h where it has one."""
    assert exit_code_of(error, redactor=Redactor()) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bug_shows_its_traceback_only_when_asked_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """-v is for the report; what was read as a secret stays out of it."""
    redactor = Redactor()
    redactor.learn([Secret("a-secret-value")])
    error = RuntimeError("it held a-secret-value")
    exit_code_of(error, redactor=redactor)
    assert "promptd -v" in capsys.readouterr().err
    exit_code_of(error, verbose=True, redactor=redactor)
    said = capsys.readouterr().err
    assert "RuntimeError" in said
    assert "a-secret-value" not in said


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`promptd … | head -1` ends quietly."""
    world = World(tmp_path, migrated=False)
    command = [sys.executable, "-m", "scheduler.cli", "--config", str(world.file)]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*command, "job", "next", "-n", "3000"],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_shell_completes_commands_jobs_runs_and_providers(tmp_path: Path) -> None:
    """Cheaply, and with nothing at all where the configuration cannot be read."""
    world = World(tmp_path)
    with world.ledger() as connection:
        world.begin(connection)

    def completed(*words: str) -> set[str]:
        environ = {
            **os.environ,
            "_PROMPTD_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("promptd", "--config", str(world.file), *words)),
            "COMP_CWORD": str(len(words) + 2),
        }
        command = [sys.executable, "-m", "scheduler.cli"]
        done = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stderr == ""
        return {line.partition(",")[2] for line in done.stdout.split()}

    assert completed("jo") == {"job"}
    assert completed("job", "show", "d") == {"digest"}
    assert completed("run", "show", "") == {"1"}
    assert completed("auth", "why", "custom") == {"custom:house"}
    world.file.write_text("broken: [")
    assert completed("job", "show", "d") == set()
