"""What providers say on the command line: it is shown, and acts on no terminal."""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from test_cli_ground import World

from jobs.errors import Unavailable
from jobs.events import ChainWaits, Event, RunRetries
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback
from jobs.run import ClaimedRun, Trigger
from jobs.secret import Redactor
from scheduler.cli import main
from scheduler.cli.edge import exit_code_of
from scheduler.cli.job_run import say_waits

HOSTILE = "A\x1b]0;pwn\x07\x1b[2J\x9b2J\u202eB"
SHOWN = "A�]0;pwn��[2J�2J�B"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = ClaimedRun(7, "hand", NOW, Trigger.MANUAL, tries=1)
CONFIG = """
state_dir: state
model: {{provider: custom, name: house, base_url: "{url}", model: small, api_key: no-key-required}}
jobs:
  - {{name: hand, schedule: null, prompt: hello}}
"""


@pytest.fixture
def provider() -> Iterator[ThreadedLoopback]:
    with ThreadedLoopback() as server:
        yield server


@pytest.mark.parametrize("words", [("job", "run", "hand"), ("ask", "hello"), ("run", "retry", "1")])
def test_a_refusal_is_told_without_its_control_characters(
    tmp_path: Path, provider: ThreadedLoopback, words: tuple[str, ...]
) -> None:
    provider.script(Endpoint.CHAT, Reply.error(400, message=HOSTILE))
    world = World(tmp_path, config=CONFIG.format(url=provider.base_url))
    if words[0] == "run":
        world.run("job", "run", "hand")

    said = world.run(*words)

    assert (said.code, SHOWN in said.err) == (1, True), said
    assert said.err.replace("\n", "").isprintable()


@pytest.mark.parametrize("event", [ChainWaits(7, 5.0, HOSTILE), RunRetries(RUN, NOW, 5.0, HOSTILE)])
def test_what_is_waited_for_is_told_without_control_characters(
    capsys: pytest.CaptureFixture[str], event: Event
) -> None:
    say_waits(event)
    said = capsys.readouterr().err
    assert SHOWN in said
    assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize("error", [Unavailable(HOSTILE), click.UsageError(HOSTILE), RuntimeError(HOSTILE)])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_error_acts_on_a_terminal(
    capsys: pytest.CaptureFixture[str], error: Exception, verbose: bool
) -> None:
    assert exit_code_of(error, verbose=verbose, redactor=Redactor())
    said = capsys.readouterr().err
    assert "pwn" in said
    assert said.replace("\n", "").isprintable()


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "words",
    [
        ("job", "run", "hand"),
        ("ask", "hello"),
        ("run", "output", "1"),
        ("run", "show", "1"),
        ("run", "show", "1", "--json"),
        ("run", "export", "--format", "csv"),
        ("run", "export", "--format", "jsonl"),
    ],
)
def test_an_answer_acts_on_no_terminal(
    tmp_path: Path, provider: ThreadedLoopback, words: tuple[str, ...]
) -> None:
    provider.script(Endpoint.CHAT, Reply.text(HOSTILE))
    world = World(tmp_path, config=CONFIG.format(url=provider.base_url))
    if words[0] == "run":
        world.run("job", "run", "hand")
    out = Terminal()

    with redirect_stdout(out):
        code = main(["--config", str(world.file), *words], environ=world.environ)

    assert (code, "pwn" in out.getvalue()) == (0, True)
    assert "".join(out.getvalue().split()).isprintable()
