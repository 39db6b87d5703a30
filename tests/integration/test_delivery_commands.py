"""Commands as delivery targets: the text on standard input, facts in variables, and a whole end in time."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from support.delivering import KEY, message, tools_with
from support.hang_guard import wait_ends
from support.workplace import eventually

from jobs.commands import Commands, Given
from jobs.credential import SecretReference
from jobs.definition import Command
from jobs.delivery.message import Message
from jobs.delivery.send import Tools, send
from jobs.delivery.target import CommandTarget
from jobs.errors import Undeliverable
from jobs.secret import Redactor, Secret

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)


def shell(line: str, *, timeout: timedelta = 120 * SECOND) -> CommandTarget:
    return CommandTarget("print", Command((line,), shell=True, timeout=timeout))


async def _refused(target: CommandTarget, tools: Tools, what: Message | None = None) -> str:
    with pytest.raises(Undeliverable) as refused:
        await send(target, what or message(), tools=tools)
    assert not refused.value.permanent
    return str(refused.value)


@pytest.mark.parametrize("line", ["cat", "cat /dev/stdin", "cat -; cat"])
async def test_a_command_reads_the_text_from_its_standard_input(line: str, tmp_path: Path) -> None:
    async with tools_with() as tools:
        await send(shell(f"({line}) > {tmp_path}/out"), message("Grüße\n{{ 7 * 7 }} $HOME `id`"), tools=tools)

    assert (tmp_path / "out").read_text() == "Grüße\n{{ 7 * 7 }} $HOME `id`"


async def test_a_secret_of_ours_stands_in_no_variable(tmp_path: Path) -> None:
    async with tools_with() as tools:
        tools.redactor.learn([Secret("the-key-of-a-provider")])
        line = f'printf \'%s, \' "$PROMPTD_SUBJECT" "$PROMPTD_TITLE" > {tmp_path}/told'
        await send(shell(line), message(title="It is the-key-of-a-provider"), tools=tools)

    assert (tmp_path / "told").read_text() == "It is [secret], It is [secret], "


async def test_what_it_is_about_stands_in_variables(tmp_path: Path) -> None:
    async with tools_with(HOME="/root") as tools:
        await send(shell(f"env > {tmp_path}/env"), message(title="Well\nDone"), tools=tools)

    told = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    ours = {name: value for name, value in told.items() if name.startswith("PROMPTD_")}
    assert ours == {
        "PROMPTD_DELIVERY_KEY": KEY,
        "PROMPTD_KIND": "run",
        "PROMPTD_SUBJECT": "Well Done",
        "PROMPTD_TITLE": "Well Done",
        "PROMPTD_JOB": "morning-digest",
        "PROMPTD_RUN_ID": "7",
        "PROMPTD_SCHEDULED_FOR": "2026-11-21T06:00:00+00:00",
        "PROMPTD_TRIGGER": "schedule",
        "PROMPTD_STATE": "succeeded",
        "PROMPTD_FALLBACK": "false",
        "PROMPTD_TRUNCATED": "false",
    }
    assert told["HOME"] == "/root"


async def test_hostile_words_are_neither_run_nor_broken_lines(tmp_path: Path) -> None:
    deed = f"touch {tmp_path}/evil"
    hostile = f"x'; {deed}; `{deed}` $({deed})\nPATH=/evil\0\ud800"
    line = f'printf "%s" "$PROMPTD_JOB" > {tmp_path}/subject; echo "$PATH" > {tmp_path}/path'
    async with tools_with() as tools:
        await send(shell(line), message(hostile, title=hostile, job=hostile), tools=tools)

    assert (tmp_path / "subject").read_text().startswith("x'; touch ")
    assert len((tmp_path / "subject").read_text().splitlines()) == 1
    assert "evil" not in (tmp_path / "path").read_text()
    assert not (tmp_path / "evil").exists()


async def test_a_command_need_not_read_what_it_is_given() -> None:
    async with tools_with() as tools:
        await send(CommandTarget("print", Command(("true",))), message("x" * 5_000_000), tools=tools)


async def test_what_is_given_is_whole_and_past_ten_megabytes_it_is_cut(tmp_path: Path) -> None:
    text = "ü" * 4_000_000
    async with tools_with() as tools:
        await send(shell(f"sha256sum > {tmp_path}/sum"), message(text), tools=tools)
        await send(
            shell(f"tail -c 90 > {tmp_path}/end; cat; wc -c > {tmp_path}/size"),
            message(text * 2),
            tools=tools,
        )

    assert (tmp_path / "sum").read_text().split()[0] == hashlib.sha256(text.encode()).hexdigest()
    assert (
        (tmp_path / "end").read_text().endswith("8,000,000 characters; `promptd run output 7` prints it]\n")
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("cat > /dev/null; echo no paper >&2; exit 3", "the shell command ended with 3: no paper"),
        ("kill -9 $$", "the shell command was ended by signal 9"),
        ("exit 255", "the shell command ended with 255"),
    ],
)
async def test_a_command_that_fails_is_tried_again(line: str, why: str) -> None:
    async with tools_with() as tools:
        assert await _refused(shell(line), tools) == why


async def test_a_command_that_is_not_there_is_tried_again() -> None:
    async with tools_with() as tools:
        why = await _refused(CommandTarget("print", Command(("/nonexistent/lp", "-"))), tools)

    assert why == "the command '/nonexistent/lp' cannot be started: No such file or directory"


async def test_a_command_that_never_ends_is_killed_with_all_that_it_has_started(tmp_path: Path) -> None:
    lines = f"sleep 300 & echo $! > {tmp_path}/pid; (sleep 300 & echo $! > {tmp_path}/grandchild); wait"
    async with tools_with() as tools, wait_ends():
        why = await _refused(shell(lines, timeout=3 * SECOND), tools)

    assert why == "the shell command had not ended after 3 s and was killed; raise its `timeout`"
    for name in ("pid", "grandchild"):
        assert _ended((tmp_path / name).read_text().strip())


def _ended(pid: str) -> bool:
    """Say whether a process is gone, or only waited for by its parent (proc(5): state Z), soon."""
    stat = Path(f"/proc/{pid}/stat")

    def ended() -> bool:
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    return eventually(ended)


async def test_a_secret_of_ours_is_not_in_its_complaint() -> None:
    async with tools_with(HOOK="the-key-of-this-house") as tools:
        tools.secrets.read(SecretReference("env", "HOOK"))
        why = await _refused(shell("echo denied: the-key-of-this-house >&2; exit 1"), tools)

    assert why == "the shell command ended with 1: denied: [secret]"


async def test_a_delivery_that_is_cancelled_ends_its_command(tmp_path: Path) -> None:
    async with tools_with() as tools:
        line = f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; sleep 300"
        sending = asyncio.create_task(send(shell(line), message(), tools=tools))
        async with wait_ends():
            while not (tmp_path / "pid").exists():
                await asyncio.sleep(0.01)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    assert _ended((tmp_path / "pid").read_text().strip())


@pytest.mark.parametrize("given", [[b"one", b"two"], [b"x" * 1_000_000, b""]])
async def test_what_a_command_is_given_is_its_own(given: Sequence[bytes]) -> None:
    """And no descriptor of ours stays open for it, or after it."""
    commands = Commands({"PATH": os.environ["PATH"]}, Redactor())
    command, before = Command(("cat",), max_bytes=2_000_000), len(os.listdir("/proc/self/fd"))

    said = await asyncio.gather(*(commands.output_of(command, given=Given(each)) for each in given))

    assert [each.encode() for each in said] == list(given)
    async with wait_ends():  # what is closed in the next turn of the loop is closed
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0.01)
