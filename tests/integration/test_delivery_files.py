"""Files as delivery targets: whole or not at all, for their owner only, never outside of their directory."""

import asyncio
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from support.delivering import message, tools_with
from support.namespace import NotThere
from support.small_disk import SmallDisk, mounted

from jobs.delivery.message import Message
from jobs.delivery.send import Tools, send
from jobs.delivery.target import FileTarget
from jobs.errors import Undeliverable

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)
_WRITER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.delivering import message
from jobs.delivery.file import write
from jobs.delivery.target import FileTarget
from jobs.errors import Undeliverable

base = Path(sys.argv[2])
for line in sys.stdin:
    try:
        write(FileTarget("inbox", "out/{job}.md", base), message(line.rstrip("\\n") * 50_000))
        said = "written"
    except Undeliverable as exc:
        said = [str(exc), exc.permanent]
    begins = (base / "out/morning-digest.md").read_text()[:4]
    print(json.dumps({"said": said, "begins": begins, "files": os.listdir(base / "out")}), flush=True)
"""


def inbox(base: Path, template: str = "out/{job}.md") -> FileTarget:
    return FileTarget("inbox", template, base)


async def _refused(target: FileTarget, tools: Tools, what: Message | None = None) -> Undeliverable:
    with pytest.raises(Undeliverable) as refused:
        await send(target, what or message(), tools=tools)
    return refused.value


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_result_is_written_for_its_owner_only_and_replaces_the_one_before(tmp_path: Path) -> None:
    target = inbox(tmp_path / "state", "out/{job}/{scheduled_for:%Y-%m-%d}.md")
    async with tools_with() as tools:
        await send(target, message("Grüße"), tools=tools)
        written = tmp_path / "state/out/morning-digest/2026-11-21.md"
        assert written.read_text() == "Grüße\n"

        await send(target, message("Once more\n"), tools=tools)

    assert written.read_text() == "Once more\n"
    assert _mode(written) == 0o600
    assert {_mode(each) for each in (tmp_path / "state", written.parent, written.parent.parent)} == {0o700}
    assert os.listdir(written.parent) == ["2026-11-21.md"]


async def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/morning-digest.md").touch(0o600)
    (tmp_path / "out/morning-digest.md").chmod(0o644)
    async with tools_with() as tools:
        await send(inbox(tmp_path), message(), tools=tools)

    assert _mode(tmp_path / "out/morning-digest.md") == 0o644


async def test_an_absolute_name_lies_where_it_says(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    async with tools_with() as tools:
        await send(inbox(tmp_path / "state", f"{tmp_path}/link/far/{{run_id}}.md"), message(), tools=tools)

    assert (tmp_path / "far/7.md").read_text() == "All is well.\n"
    assert _mode(tmp_path / "far") == 0o700


@pytest.mark.parametrize("template", ["../{job}", "out/../../{job}", "{job.__class__}", "{", ""])
async def test_a_name_that_leads_nowhere_is_refused_for_good(tmp_path: Path, template: str) -> None:
    async with tools_with() as tools:
        refused = await _refused(inbox(tmp_path / "state", template), tools)

    assert refused.permanent
    assert str(refused).startswith("the name of its file ")
    assert not (tmp_path / "state").exists()


async def test_no_link_leads_out_of_the_directory(tmp_path: Path) -> None:
    """Neither one in the place of a directory, nor one in the place of the file: that is replaced."""
    outside, base = tmp_path / "outside", tmp_path / "state"
    outside.mkdir()
    base.mkdir()
    (outside / "file").write_text("mine")
    (base / "out").symlink_to(outside)
    (base / "latest.md").symlink_to(outside / "file")
    async with tools_with() as tools:
        refused = await _refused(inbox(base), tools)
        await send(inbox(base, "latest.md"), message(), tools=tools)

    assert str(refused) == "out/morning-digest.md cannot be written: Not a directory"
    assert os.listdir(outside) == ["file"]
    assert (outside / "file").read_text() == "mine"
    assert not (base / "latest.md").is_symlink()
    assert (base / "latest.md").read_text() == "All is well.\n"


@pytest.mark.parametrize(
    ("template", "why"), [("{job}", "Is a directory"), ("x" * 256, "File name too long")]
)
async def test_what_the_system_refuses_is_said_and_leaves_nothing(
    tmp_path: Path, template: str, why: str
) -> None:
    (tmp_path / "morning-digest").mkdir()
    async with tools_with() as tools:
        refused = await _refused(inbox(tmp_path, template), tools)

    assert str(refused).endswith(f"cannot be written: {why}")
    assert not refused.permanent
    assert os.listdir(tmp_path) == ["morning-digest"]


async def test_hostile_text_is_written_as_text(tmp_path: Path) -> None:
    async with tools_with() as tools:
        await send(inbox(tmp_path, "a.md"), message("{job} \ud800\0\r\n{{ 7 * 7 }}"), tools=tools)

    assert (tmp_path / "a.md").read_bytes() == "{job} \ufffd\ufffd\r\n{{ 7 * 7 }}\n".encode()


async def test_a_disk_that_does_not_answer_costs_only_the_time(tmp_path: Path) -> None:
    target = FileTarget("inbox", "a.md", tmp_path, timeout=SECOND / 10)
    disk_answers = threading.Event()
    async with tools_with() as tools:
        hanging = [asyncio.create_task(tools.disks.call(disk_answers.wait)) for _ in range(8)]
        await asyncio.sleep(0)
        refused = await _refused(target, tools)
        disk_answers.set()
        await asyncio.gather(*hanging)
        await send(target, message(), tools=tools)

    assert str(refused) == "its disk gave no answer within 0.1 s"
    assert (tmp_path / "a.md").exists()


def test_a_full_disk_leaves_the_file_as_it_was_and_takes_the_next_when_there_is_room(tmp_path: Path) -> None:
    """The disk is another's: a process that is in its namespace writes there."""
    try:
        with mounted(tmp_path / "disk", size="1m") as disk, _writer(disk) as writer:
            before = _written(writer, "old ")
            disk.fill()
            refused = _written(writer, "new ")
            disk.free()
            after = _written(writer, "new ")
    except NotThere as why:
        pytest.skip(str(why))

    assert before == {"said": "written", "begins": "old ", "files": ["morning-digest.md"]}
    why = "out/morning-digest.md cannot be written: No space left on device"
    assert refused == {"said": [why, False], "begins": "old ", "files": ["morning-digest.md"]}
    assert after == {"said": "written", "begins": "new ", "files": ["morning-digest.md"]}


@contextmanager
def _writer(disk: SmallDisk) -> Iterator[subprocess.Popen[str]]:
    tests = Path(__file__).parents[1]
    words = disk.namespace.inside(sys.executable, "-c", _WRITER, str(tests), str(disk.directory))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        yield writer
        assert writer.stdin is not None
        writer.stdin.close()


def _written(writer: subprocess.Popen[str], word: str) -> object:
    """Have a long text of one word written; return what came of it, and what stands there now."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(f"{word}\n")
    writer.stdin.flush()
    return json.loads(writer.stdout.readline())
