"""What the tests fork is the installed command: both print the same and end alike, and so by signals."""

import os
import signal
import subprocess

import pytest
from support import forked
from support.workplace import PATIENCE, PROMPTD, Workplace

CONFIG = """
timezone: UTC
model: {provider: custom, base_url: "http://127.0.0.1:9/v1", model: small, api_key_env: THE_KEY}
jobs: [{name: a, schedule: "0 7 * * *", prompt: "{{ vars.x }}"}]
"""


@pytest.fixture
def house(workplace: Workplace) -> Workplace:
    workplace.configure(CONFIG)
    workplace.environ = {"THE_KEY": "a-key-of-the-house", "TZ": "Asia/Tokyo"}
    if not forked.can_fork(workplace.environment()):
        pytest.skip("nothing is forked: --installed, or no pidfd_open here")
    return workplace


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (("check",), None),
        (("auth", "list", "--json"), None),
        (("job", "run", "a", "--dry-run", "--var", "x=é…"), None),
        (("job", "add", "-"), "name: b\nschedul: every 1s\n"),
        (("nonsense",), None),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else None,
)
def test_a_forked_command_is_the_installed_one(
    house: Workplace, words: tuple[str, ...], stdin: str | None
) -> None:
    command = (str(PROMPTD), "--config", str(house.config), *words)
    begun = subprocess.run(
        command,
        cwd=house.directory,
        env=house.environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    done = house.run(*words, stdin=stdin)

    assert (done.code, done.out, done.err) == (begun.returncode, begun.stdout, begun.stderr)


def test_a_variable_that_an_interpreter_reads_as_it_begins_forbids_to_fork(house: Workplace) -> None:
    for name in ("LD_PRELOAD", "LC_ALL", "PYTHONUTF8"):
        assert not forked.can_fork({**house.environment(), name: "C"})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_forked_ends_by_its_signal(house: Workplace, number: signal.Signals) -> None:
    read, write = os.pipe()
    process = forked.Forked(
        (str(PROMPTD), "--config", str(house.config), "ask", "-"),
        house.directory,
        house.environment(),
        (read, 1, 2),
    )
    os.close(read)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.send_signal(number)
    code = process.wait(PATIENCE)
    os.close(write)

    assert code == -number
