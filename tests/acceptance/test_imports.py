"""What is not needed is not imported: `--help` and `job next` stay quick because they load little."""

import json
import subprocess
import sys

import pytest
from support.workplace import Workplace

HEAVY = {"openai", "sqlalchemy.orm", "alembic", "aiohttp", "httpx2", "uvicorn", "starlette", "apscheduler"}
HEAVIER = {"sqlalchemy", "pydantic", "yaml", "rich", "jinja2", "cryptography", "structlog"}
OF_THE_PACKAGE = {"importlib.metadata"}
LOADED_AFTER = """
import json, sys
from scheduler.cli import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps(sorted(sys.modules)))
"""
CONFIG = """
model: openai/gpt-5.5
jobs: [{name: digest, schedule: "0 7 * * *", prompt: "Summarise."}]
"""


def loaded_after(workplace: Workplace, *words: str) -> set[str]:
    """Run a command in a process of its own and return the modules it had loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED_AFTER, "--config", str(workplace.config), *words],
        cwd=workplace.directory,
        env=workplace.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def told_by(code: str) -> list[str]:
    """Run a line of Python in a process of its own and return the words that it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("words", [["--help"], ["job", "--help"]])
def test_help_loads_nothing_but_click(workplace: Workplace, words: list[str]) -> None:
    assert loaded_after(workplace, *words) & (HEAVY | HEAVIER | OF_THE_PACKAGE) == set()


def test_the_version_loads_little_more(workplace: Workplace) -> None:
    assert loaded_after(workplace, "--version") & (HEAVY | HEAVIER) == set()


def test_job_next_loads_neither_the_sdk_nor_the_orm_nor_the_migrations(workplace: Workplace) -> None:
    workplace.configure(CONFIG)

    assert loaded_after(workplace, "job", "next", "--json") & HEAVY == set()


def test_job_next_does_not_load_them_where_there_is_a_database_either(workplace: Workplace) -> None:
    workplace.configure(CONFIG)
    assert workplace.run("db", "upgrade").code == 0

    assert loaded_after(workplace, "job", "next") & HEAVY == set()


def test_a_client_loads_the_sdk_and_not_the_models_of_its_api() -> None:
    told = told_by("import sys, jobs.providers.client as c; print('openai' in sys.modules, *sys.modules)")

    assert told[0] == "True"
    assert [name for name in told if name.startswith("openai.types.responses.response")] == []
    assert {"openai.types.batch", "openai.types.beta"} & set(told[1:]) == set()


def test_whoever_asks_the_sdk_for_its_models_finds_them() -> None:
    asked = (
        "import jobs.providers.client, openai; from openai.types.responses import Response; "
        "print(openai.types.chat.ChatCompletion.__name__, openai.types.Batch.__name__, Response.__name__)"
    )

    assert told_by(asked) == ["ChatCompletion", "Batch", "Response"]


def test_a_command_does_not_look_for_garbage_among_what_it_has_just_imported() -> None:
    code = "import gc, sys; from scheduler.cli import main; sys.argv = ['promptd', '--version']; main(); "

    assert told_by(f"{code} print(gc.get_freeze_count() > 0, gc.get_threshold()[0])")[2:] == [
        "True",
        "100000",
    ]
