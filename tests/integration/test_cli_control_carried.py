"""Commands carried out in a daemon's name: with its environment, on the terminal of a caller who is there."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from support.controlled import Verbs, listening
from support.workplace import PATIENCE, PROMPTD, Workplace, eventually, jwt

from scheduler.control import Control
from scheduler.control_protocol import encoded

HEAVY = {"alembic", "jinja2", "openai", "pydantic", "sqlalchemy", "yaml"}

CONFIG = """
model: openai/gpt-5.5
providers:
  openai: {credentials: [{label: main, key: "env:HOUSE_KEY"}]}
jobs:
  - {name: tick, schedule: every 1h, prompt: hello}
"""


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    workplace = Workplace(tmp_path)
    workplace.configure(CONFIG)
    return workplace


@contextmanager
def daemon_of(place: Workplace, *, at_once: int = 16, drain: float = 0.0) -> Iterator[Control]:
    """Listen with an environment in which the provider's key is; the caller's has none."""
    environ = {**place.environment(), "HOUSE_KEY": "sk-house-secret"}
    with listening(
        place.directory / "state", Verbs(place.config), environ=environ, at_once=at_once, drain=drain
    ) as control:
        yield control


@contextmanager
def waiting(place: Workplace, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Begin an `ask` that reads its prompt from a pipe, and so waits as long as the test wants it to."""
    caller = subprocess.Popen(
        [str(PROMPTD), "--config", str(place.config), "ask", "-", *words],
        cwd=place.directory,
        env=place.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield caller
    finally:
        caller.kill()
        for stream in (caller.stdin, caller.stdout, caller.stderr):
            assert stream is not None
            stream.close()
        caller.wait()


@contextmanager
def waiting_at(
    place: Workplace, daemon: AbstractContextManager[Control]
) -> Iterator[tuple["subprocess.Popen[str]", ExitStack]]:
    """Have a command carried out that waits; closing the second stops the daemon."""
    with ExitStack() as running:
        running.enter_context(daemon)
        with waiting(place) as caller:
            eventually(carrying)
            yield caller, running


def carrying() -> int | None:
    """Return the process that carries something out for this one, once it has read what."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes()
            parent = (directory / "stat").read_text().rpartition(")")[2].split()[1]
            reads = (directory / "wchan").read_text()
        except OSError:
            continue
        if b"scheduler.cli.carried" in words and int(parent) == os.getpid() and "pipe" in reads:
            return int(directory.name)
    return None


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_command_has_the_secrets_of_the_daemon_and_writes_on_the_terminal_of_its_caller(
    place: Workplace,
) -> None:
    alone = place.run("check")
    with daemon_of(place):
        beside = place.run("check")
    assert alone.code == 1
    assert "HOUSE_KEY" in alone.out
    assert (beside.code, beside.err) == (0, "")
    assert "everything can be read" in beside.out


def test_a_command_works_with_what_is_in_force_whatever_stands_in_the_file_by_now(place: Workplace) -> None:
    verbs = Verbs(place.config)
    verbs.handed = verbs.in_force()
    with listening(place.directory / "state", verbs, environ=place.environment()):
        place.configure("state_dir: moved\ndatabase: sqlite:///other.db\nno_such_key: 1\n")
        paused = place.run("job", "pause", "tick")
        checked = place.run("check")
    assert (paused.code, paused.out) == (0, "tick is paused\n"), paused
    assert verbs.asked == [("wake", "tick")]
    assert [row["name"] for row in place.rows("SELECT name FROM jobs WHERE paused_at IS NOT NULL")] == [
        "tick"
    ]
    assert not (place.directory / "moved").exists()
    assert checked.code == 78
    assert "no_such_key" in checked.err


def test_a_mistake_of_the_caller_is_told_as_it_would_be_without_a_daemon(place: Workplace) -> None:
    alone = place.run("run", "list", "--limit", "x")
    with daemon_of(place):
        assert place.run("run", "list", "--limit", "x") == alone
    assert alone.code == 2


def test_the_callers_process_loads_nothing_heavy(place: Workplace) -> None:
    code = (
        "import sys; from scheduler.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    with daemon_of(place):
        done = subprocess.run(
            [sys.executable, "-c", code, "--config", str(place.config), "job", "list"],
            env=place.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert "tick" in done.stdout
    assert not HEAVY & set(done.stderr.split())


def test_no_process_list_shows_the_words_of_a_command(place: Workplace) -> None:
    with daemon_of(place), waiting(place, "--model", "a-model-nobody-sees"):
        pid = eventually(carrying)
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    assert b"nobody-sees" not in shown


def test_what_interrupts_the_caller_interrupts_the_command(place: Workplace) -> None:
    with daemon_of(place), waiting(place) as caller:
        pid = eventually(carrying)
        caller.send_signal(signal.SIGINT)
        assert caller.wait(PATIENCE) == 130
        assert gone(pid)


@contextmanager
def standing_still(place: Workplace) -> Iterator[tuple[threading.Event, bytearray]]:
    """Greet a caller as a daemon does, and say nothing more; give what he says then, and when he does."""
    asked, heard = threading.Event(), bytearray()
    hello = {"config": str(place.config), "pid": 4711, "version": "1", "drain_timeout": 1.0}
    (place.directory / "state").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.directory / "state" / "control.sock"))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as caller, caller.makefile("rb") as lines:
                lines.readline()
                caller.sendall(encoded({"answer": hello}))
                for line in lines:
                    heard.extend(line)
                    asked.set()

        answering = threading.Thread(target=answer)
        answering.start()
        yield asked, heard
        answering.join(PATIENCE)


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGINT,)])
def test_a_caller_whose_daemon_stands_still_can_be_interrupted(
    place: Workplace, numbers: tuple[signal.Signals, ...]
) -> None:
    """By a second signal, which is not passed on, and some seconds after the first."""
    with standing_still(place) as (asked, heard), waiting(place) as caller:
        for number in numbers:
            assert asked.wait(PATIENCE)
            asked.clear()
            caller.send_signal(number)
        assert caller.wait(PATIENCE) == 128 + numbers[-1]
        assert caller.stderr is not None
        assert "not waited for any longer: the daemon (process 4711)" in caller.stderr.read()
    assert (b"SIGINT" in heard, b"SIGTERM" in heard) == (True, False)


def test_a_command_ends_when_its_caller_is_gone(place: Workplace) -> None:
    with daemon_of(place), waiting(place) as caller:
        pid = eventually(carrying)
        caller.kill()
        eventually(lambda: gone(pid))


def test_one_command_too_many_is_exit_75_and_the_place_is_free_again_afterwards(place: Workplace) -> None:
    with daemon_of(place, at_once=1):
        with waiting(place) as caller:
            eventually(carrying)
            looked = place.run("job", "list")
            refused = place.run("ask", "hello")
            caller.terminate()
            caller.wait(PATIENCE)
        served = place.run("ask", "-", stdin="")
    assert looked.code == 0, "who only looks has a place of his own"
    assert (refused.code, refused.out) == (75, "")
    assert "try again" in refused.err
    assert served.code == 2, "there is no prompt"


def test_a_daemon_that_stops_ends_what_it_carries_out_and_says_how_that_ended(place: Workplace) -> None:
    with waiting_at(place, daemon_of(place)) as (caller, daemon):
        daemon.close()
        assert carrying() is None
        assert caller.wait(PATIENCE) == 128 + signal.SIGTERM


def test_what_ends_while_the_daemon_drains_is_not_interrupted(place: Workplace) -> None:
    with waiting_at(place, daemon_of(place, drain=60)) as (caller, daemon):
        assert caller.stdin is not None
        caller.stdin.close()
        daemon.close()
        assert caller.wait(PATIENCE) == 2, "there is no prompt"


def test_a_file_that_an_option_names_is_opened_by_the_caller_where_he_is(place: Workplace) -> None:
    login = {"tokens": {"access_token": jwt({"n": 1}), "refresh_token": "r-1", "account_id": "a-1"}}
    there = place.directory / "elsewhere"
    there.mkdir()
    (there / "mine.json").write_text(json.dumps(login))
    (place.directory / ".codex").mkdir()
    (place.directory / ".codex" / "auth.json").write_text(json.dumps(login))
    command = [str(PROMPTD), "--config", str(place.config), "auth", "import", "codex"]
    with daemon_of(place):
        for words in (["--file=mine.json"], []):
            done = subprocess.run(
                [*command, *words],
                cwd=there,
                env=place.environment(),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done
            assert "logged in: openai-codex" in done.stderr


def test_the_daemon_of_another_configuration_is_not_asked(place: Workplace) -> None:
    other = place.directory / "other.yaml"
    other.write_text(place.config.read_text())
    with listening(
        place.directory / "state", Verbs(other), environ={**place.environment(), "HOUSE_KEY": "k"}
    ):
        assert place.run("check").code == 1


def test_a_daemon_that_does_not_answer_is_not_waited_for(place: Workplace) -> None:
    state = place.directory / "state"
    state.mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        directory = os.open(state, os.O_PATH)
        silent.bind(f"/proc/self/fd/{directory}/control.sock")
        os.close(directory)
        silent.listen(4)
        assert place.run("job", "list").code == 0
