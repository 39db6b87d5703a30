"""A job's commands: what they may know, what is kept of what they print, and that they end whole."""

import asyncio
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.hang_guard import wait_ends
from support.workplace import eventually

from jobs.commands import Commands, Given, without_secrets
from jobs.credential import SecretReference
from jobs.definition import Command
from jobs.errors import CommandFailed
from jobs.providers.registry import Registry
from jobs.providers.rows import CredentialRow, ProviderRow
from jobs.secret import Redactor, Secret

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)
SLEEPS = "sleep 300 & echo $! > {file}; "


@pytest.fixture
def commands() -> Commands:
    """Return commands that know the search path and one more variable."""
    return Commands({"PATH": os.environ["PATH"], "COLOUR": "red"}, Redactor())


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Path]:
    """Return a file for the number of a process; that process is gone at the end of the test."""
    file = tmp_path / "pid"
    yield file
    assert not Path(f"/proc/{file.read_text().strip()}").exists() or _is_dead(file)


def _begun(file: Path) -> bool:
    """Say whether the process in the background has its number written down."""
    return file.exists() and file.read_text().endswith("\n")


def _is_dead(file: Path) -> bool:
    """Say whether a process is only waited for by its parent (proc(5): state Z), at the latest soon."""
    stat = Path(f"/proc/{file.read_text().strip()}/stat")

    def ended() -> bool:
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    return eventually(ended)


def shell(line: str, *, timeout: timedelta = 30 * SECOND, most: int = 200_000) -> Command:
    return Command((line,), shell=True, timeout=timeout, max_bytes=most)


async def test_words_are_passed_on_as_they_are_and_no_shell_reads_them(commands: Commands) -> None:
    said = await commands.output_of(Command(("printf", "%s|", "$COLOUR; ls *", "two  words")))

    assert said == "$COLOUR; ls *|two  words|"


async def test_a_text_is_read_by_a_shell(commands: Commands) -> None:
    assert await commands.output_of(shell("echo $COLOUR | tr a-z A-Z")) == "RED\n"


async def test_standard_input_is_empty(commands: Commands) -> None:
    assert await commands.output_of(Command(("cat",))) == ""


async def test_no_variable_with_a_secret_reaches_a_command() -> None:
    """Nor one that leads to secrets; built-in key variables are held back without being used."""
    registry = Registry()
    one = CredentialRow(label="one", key="env:NAMED_KEY")
    registry.add("house", ProviderRow(base_url="http://localhost:9/v1", credentials=(one,)))
    environ = {
        **dict.fromkeys(("NAMED_KEY", "OPENAI_API_KEY", "HF_TOKEN", "GLM_API_KEY", "OWN_KEY"), "secret"),
        "CREDENTIALS_DIRECTORY": "/run/credentials",
        "PATH": os.environ["PATH"],
        "LANG": "C",
    }

    kept = without_secrets(environ, registry, [SecretReference("env", "OWN_KEY")])
    said = await Commands(kept, Redactor()).output_of(Command(("env",)))

    assert sorted(line.partition("=")[0] for line in said.splitlines()) == ["LANG", "PATH"]


async def test_the_answer_of_a_program_of_ours_is_what_it_has_printed(commands: Commands) -> None:
    commands.redactor.learn([Secret("delivered")])
    answering = Command(("printf", r'{"delivered": true}\377...'), max_bytes=20)

    assert await commands.answer_of(answering, given=Given()) == b'{"delivered": true}\xff'
    with pytest.raises(CommandFailed, match="ended with 3"):
        await commands.answer_of(shell("exit 3"), given=Given())


async def test_what_is_no_utf8_and_no_text_is_replaced(commands: Commands) -> None:
    assert await commands.output_of(Command(("printf", r"a\377b\000c"))) == "a�b�c"


async def test_a_long_output_is_cut_at_a_whole_character_and_says_so(commands: Commands) -> None:
    said = await commands.output_of(shell("printf 'aaü'; head -c 1000000 /dev/zero", most=3))

    assert said == "aa\n[cut here: 1,000,004 bytes were printed, and 3 are kept]\n"


@pytest.mark.parametrize("shown", [12, 27, 29])
async def test_a_secret_is_taken_out_of_an_output_also_where_the_output_was_cut(
    commands: Commands, shown: int
) -> None:
    commands.redactor.learn([Secret("mainkey-ABCDEFGH-0123456789")])
    printing = Command(("printf", "hello mainkey-ABCDEFGH-0123456789 and more"), max_bytes=6 + shown)

    said = await commands.output_of(printing)

    rest = " a"[: max(0, shown - 27)]
    assert said == f"hello [secret]{rest}\n[cut here: 42 bytes were printed, and {6 + shown} are kept]\n"


@pytest.mark.parametrize(("most", "end"), [(1_000, "mainkey"), (17, "[secret]")])
async def test_an_output_that_ends_as_a_secret_begins_stays_whole_unless_it_was_cut_there(
    commands: Commands, most: int, end: str
) -> None:
    commands.redactor.learn([Secret("mainkey-ABCDEFGH-0123456789")])
    words = "This is a mainkey" if most > 17 else "This is a mainkey and more"

    said = await commands.output_of(Command(("printf", words), max_bytes=most))

    assert said.partition("\n")[0] == f"This is a {end}"


async def test_the_rest_of_a_secret_is_taken_out_of_a_complaint_whose_beginning_is_gone(
    commands: Commands,
) -> None:
    """Of what it complained of the last 4,096 bytes are kept: they begin within the key."""
    commands.redactor.learn([Secret("mainkey-ABCDEFGH-0123456789")])
    line = "printf 'mainkey-ABCDEFGH-0123456789 %04075d' 7 >&2; exit 1"

    with pytest.raises(CommandFailed) as failed:
        await commands.output_of(shell(line))

    assert "[secret] 0000" in str(failed.value)
    assert "0123456789" not in str(failed.value)


async def test_a_command_that_prints_for_ever_is_ended_at_its_limit_and_keeps_little(
    commands: Commands,
) -> None:
    with pytest.raises(CommandFailed, match=r"had not ended after 0\.2 s and was killed"):
        await commands.output_of(Command(("yes",), timeout=SECOND / 5, max_bytes=1000))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (shell("echo first >&2; echo 'no such unit' >&2; echo >&2; exit 3"), "ended with 3: no such unit"),
        (shell("exit 1"), "the shell command ended with 1"),
        (shell("kill -TERM $$"), "was ended by signal 15"),
        (Command(("no-such-program",)), "'no-such-program' cannot be started: No such file or directory"),
        (Command(("/",)), "'/' cannot be started: Permission denied"),
        (shell("printf 'bell \\007 and %0500d' 7 >&2; exit 1"), "bell   and 000"),
    ],
    ids=["complains", "says nothing", "a signal", "not there", "no program", "noise"],
)
async def test_a_command_that_fails_says_how_and_its_last_complaint(
    commands: Commands, command: Command, said: str
) -> None:
    with pytest.raises(CommandFailed) as failed:
        await commands.output_of(command)

    assert said in str(failed.value)
    assert len(str(failed.value)) < 260


async def test_a_complaint_holds_no_secret(commands: Commands) -> None:
    commands.redactor.learn([Secret("the-key-of-this-house")])

    with pytest.raises(CommandFailed) as failed:
        await commands.output_of(shell("echo denied: the-key-of-this-house >&2; exit 1"))

    assert str(failed.value) == "the shell command ended with 1: denied: [secret]"


async def test_the_whole_process_group_is_killed_at_the_limit(commands: Commands, left: Path) -> None:
    with pytest.raises(CommandFailed, match="raise its `timeout`"):
        async with wait_ends():
            await commands.output_of(shell(SLEEPS.format(file=left) + "wait", timeout=3 * SECOND))


async def test_what_a_command_leaves_behind_neither_holds_a_run_up_nor_lives_on(
    commands: Commands, left: Path
) -> None:
    """It holds the pipe open, too."""
    async with wait_ends():
        assert await commands.output_of(shell(SLEEPS.format(file=left) + "echo done")) == "done\n"


async def test_a_cancelled_command_ends_with_its_run(commands: Commands, left: Path) -> None:
    running = asyncio.create_task(commands.output_of(shell(SLEEPS.format(file=left) + "wait")))
    async with wait_ends():
        while not _begun(left):
            await asyncio.sleep(0.01)

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("turns", range(4))
async def test_a_command_that_is_cancelled_as_it_starts_is_not_waited_for(
    commands: Commands, turns: int
) -> None:
    """Not even by what it has started already, which holds its output open."""
    running = asyncio.create_task(commands.output_of(shell("sleep 300 & wait")))
    for _ in range(turns):
        await asyncio.sleep(0)

    running.cancel()

    async with wait_ends():
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.mark.parametrize(
    ("line", "code"), [("exit 0", 0), ("exit 1", 1), ("exit 254", 254), ("nonesuch", 127)]
)
async def test_what_a_command_ends_with_is_its_word(commands: Commands, line: str, code: int) -> None:
    assert await commands.code_of(shell(line)) == code


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (shell("echo no disk >&2; exit 255"), "the shell command ended with 255: no disk"),
        (shell("kill -TERM $$"), "the shell command was ended by signal 15"),
        (shell("sleep 300", timeout=SECOND / 5), "had not ended after 0.2 s and was killed"),
        (Command(("/nonexistent",)), "the command '/nonexistent' cannot be started"),
    ],
)
async def test_a_command_that_cannot_decide_fails(commands: Commands, command: Command, said: str) -> None:
    with pytest.raises(CommandFailed, match=re.escape(said)):
        await commands.code_of(command)
