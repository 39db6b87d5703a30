"""Files as delivery targets: whole or not at all, for their owner only, never outside of their directory."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.delivering import message, tools_with
from support.ledger import DAY, HOUR
from support.namespace import NotThere
from support.small_disk import SmallDisk, mounted

from jobs.delivery import file
from jobs.delivery.message import Message
from jobs.delivery.own_files import OwnFiles
from jobs.delivery.send import Tools, send
from jobs.delivery.target import FileTarget
from jobs.errors import Undeliverable

pytestmark = pytest.mark.anyio
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_WRITER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.delivering import message
from jobs.delivery.file import write
from jobs.delivery.own_files import OwnFiles
from jobs.delivery.target import FileTarget
from jobs.errors import Undeliverable

base = Path(sys.argv[2])
for line in sys.stdin:
    try:
        said = message(line.rstrip("\\n") * 50_000)
        write(FileTarget("inbox", "out/{job}.md", base), said, OwnFiles(base))
        said = "written"
    except Undeliverable as exc:
        said = [str(exc), exc.permanent]
    begins = (base / "out/morning-digest.md").read_text()[:4]
    print(json.dumps({"said": said, "begins": begins, "files": os.listdir(base / "out")}), flush=True)
"""

_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.delivering import message
from jobs.delivery.file import write
from jobs.delivery.own_files import OwnFiles
from jobs.delivery.target import FileTarget

base = Path(sys.argv[2])
os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
write(FileTarget("inbox", "out/{job}.md", base), message("begun"), OwnFiles(base))
"""


def inbox(base: Path, template: str = "out/{job}.md") -> FileTarget:
    return FileTarget("inbox", template, base)


async def _refused(target: FileTarget, tools: Tools, what: Message | None = None) -> Undeliverable:
    with pytest.raises(Undeliverable) as refused:
        await send(target, what or message(), tools=tools)
    return refused.value


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))


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
    """Neither one in the place of a directory, nor one in the place of the file."""
    outside, base = tmp_path / "outside", tmp_path / "state"
    outside.mkdir()
    base.mkdir()
    (outside / "file").write_text("mine")
    (base / "out").symlink_to(outside)
    (base / "latest.md").symlink_to(outside / "file")
    async with tools_with() as tools:
        refused = await _refused(inbox(base), tools)
        linked = await _refused(inbox(base, "latest.md"), tools)

    assert str(refused) == "out/morning-digest.md cannot be written: Not a directory"
    assert str(linked) == "latest.md is there and no regular file; it was left as it is"
    assert os.listdir(outside) == ["file"]
    assert (outside / "file").read_text() == "mine"
    assert (base / "latest.md").is_symlink()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, _socket], ids=["pipe", "directory", "socket"])
async def test_what_is_there_and_no_file_is_left_alone_for_good(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "there")
    async with tools_with() as tools:
        refused = await _refused(inbox(tmp_path, "there"), tools)

    assert (str(refused), refused.permanent) == (
        "there is there and no regular file; it was left as it is",
        True,
    )
    assert os.listdir(tmp_path) == ["there"]
    assert not (tmp_path / "there").is_file()


async def test_what_a_job_is_called_leads_to_no_file_of_promptds_own(tmp_path: Path) -> None:
    """Nor does a link, or a name beside a database that lies elsewhere."""
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    state.mkdir()
    elsewhere.mkdir()
    (elsewhere / "runs.db").write_text("rows")
    (tmp_path / "link").symlink_to(state)
    own = OwnFiles(state, (elsewhere / "runs.db",))
    names = ["{job}.db", f"{tmp_path}/link/{{job}}.db-wal", f"{tmp_path}/link/../state/{{job}}.db"]
    names += [f"{elsewhere}/runs.db", f"{elsewhere}/runs.db-journal", "{job}.2026.bak/a.md"]
    async with tools_with() as tools:
        ours = replace(tools, own_files=own)
        refused = [await _refused(inbox(state, name), ours, message(job="promptd")) for name in names]
        await send(inbox(state, "{job}.db"), message(), tools=ours)

    assert {each.permanent for each in refused} == {True}
    assert {str(each).partition(" is ")[2] for each in refused} == {
        "a file of promptd's own, or named as one; name another"
    }
    assert (elsewhere / "runs.db").read_text() == "rows"
    assert sorted(os.listdir(elsewhere)) == ["runs.db"]
    assert os.listdir(state) == ["morning-digest.db"]


async def test_no_result_becomes_a_job_or_its_prompt(tmp_path: Path) -> None:
    """Nor what a link among the job files leads to; what lies beside all these is nobody's."""
    made, elsewhere, state = (tmp_path / name for name in ("jobs.d", "elsewhere", "state"))
    for each in (made, elsewhere, state):
        each.mkdir()
    (tmp_path / "link").symlink_to(made)
    (elsewhere / "job.yaml").write_text("a job")
    (made / "linked.yaml").symlink_to(elsewhere / "job.yaml")
    (elsewhere / "morning-digest").write_text("a prompt")
    (tmp_path / "prompt.md").symlink_to(elsewhere / "morning-digest")
    own = OwnFiles(state, (), tmp_path / "link", (tmp_path / "prompt.md",))
    jobs = [f"{made}/{{job}}.yaml", f"{tmp_path}/link/a.yaml", f"{tmp_path}/{{state}}/../jobs.d/b/c"]
    jobs += [f"{tmp_path}/link", f"{elsewhere}/job.yaml"]
    prompts = [f"{tmp_path}/prompt.md", f"{elsewhere}/{{job}}"]
    free = [f"{tmp_path}/jobs.d2/a.yaml", f"{elsewhere}/{{job}}.md", f"{tmp_path}/prompt.md.old"]
    (tmp_path / "succeeded").mkdir()
    async with tools_with() as tools:
        ours = replace(tools, own_files=own)
        told = [await _refused(inbox(state, name), ours) for name in (*jobs, *prompts)]
        for name in free:
            await send(inbox(state, name), message(), tools=ours)

    assert {each.permanent for each in told} == {True}
    assert [str(each).partition(" outside")[0].rpartition("; ")[2] for each in told] == [
        *["name a directory"] * len(jobs),
        *["name another"] * len(prompts),
    ]
    assert os.listdir(made) == ["linked.yaml"]
    assert (elsewhere / "job.yaml").read_text() == "a job"
    assert (elsewhere / "morning-digest").read_text() == "a prompt"


async def test_a_state_directory_below_the_job_files_takes_results(tmp_path: Path) -> None:
    """Job files may lie beside the configuration; those in the state directory itself are safe."""
    state = tmp_path / "state"
    async with tools_with() as tools:
        above = replace(tools, own_files=OwnFiles(state, jobs_dir=tmp_path))
        same = replace(tools, own_files=OwnFiles(state, jobs_dir=state))
        await send(inbox(state), message(), tools=above)
        refused = [
            await _refused(inbox(state, f"{tmp_path}/a.yaml"), above),
            await _refused(inbox(state, "a.yaml"), same),
        ]

    assert all("lies among the job files" in str(each) for each in refused)


async def test_what_comes_late_does_not_replace_what_is_newer(tmp_path: Path) -> None:
    """A delivery that was tried again may arrive after that of the next run; the same one may come twice."""
    target, later = inbox(tmp_path, "latest.md"), {"finished_at": LONG_AGO + HOUR}
    async with tools_with() as tools:
        await send(target, message("new", **later), tools=tools)
        await send(target, message("old", finished_at=LONG_AGO), tools=tools)
        kept = (tmp_path / "latest.md").read_text()
        await send(target, message("new, again", **later), tools=tools)

    assert kept == "new\n"
    assert (tmp_path / "latest.md").read_text() == "new, again\n"
    assert os.listdir(tmp_path) == ["latest.md"]


@pytest.mark.parametrize(
    ("after", "nanoseconds"),
    [(HOUR, 7), (36_500 * DAY, 0)],
    ids=["written by somebody", "of the future"],
)
async def test_a_file_that_no_result_has_made_so_new_is_replaced(
    tmp_path: Path, after: timedelta, nanoseconds: int
) -> None:
    (tmp_path / "latest.md").write_text("a note")
    written_at = int((LONG_AGO + after).timestamp()) * 10**9 + nanoseconds
    os.utime(tmp_path / "latest.md", ns=(written_at, written_at))
    async with tools_with() as tools:
        await send(inbox(tmp_path, "latest.md"), message(finished_at=LONG_AGO), tools=tools)

    assert (tmp_path / "latest.md").read_text() == "All is well.\n"


async def test_what_the_system_refuses_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    async with tools_with() as tools:
        refused = await _refused(inbox(tmp_path, "x" * 256), tools)

    assert str(refused).endswith("cannot be written: File name too long")
    assert not refused.permanent
    assert os.listdir(tmp_path) == []


async def test_what_a_killed_process_has_begun_goes_when_it_is_tried_again(tmp_path: Path) -> None:
    """Ones of other deliveries stay for a day, since they may be at work; so does what is not ours."""
    others = {".promptd-notes", f".promptd-{'a' * 16}", f".promptd-{'b' * 16}-{'c' * 16}"}
    (tmp_path / "out").mkdir()
    for name in others:
        (tmp_path / "out" / name).touch()
    words = (sys.executable, "-c", _KILLED, str(Path(__file__).parents[1]), str(tmp_path))
    killed = await asyncio.create_subprocess_exec(*words)
    assert await killed.wait() == -signal.SIGKILL
    begun = set(os.listdir(tmp_path / "out")) - others

    async with tools_with() as tools:
        await send(inbox(tmp_path), message(), tools=tools)

    assert len(begun) == 1
    assert set(os.listdir(tmp_path / "out")) == {*others, "morning-digest.md"}


async def test_what_was_begun_by_anybody_long_ago_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, kept = tmp_path / f".promptd-{'a' * 16}", tmp_path / ".promptd-notes"
    linked = tmp_path / f".promptd-{'b' * 16}-{'c' * 16}"
    old.touch()
    kept.touch()
    linked.symlink_to(kept)
    monkeypatch.setattr(file, "LEFT_BEHIND_AFTER", timedelta(0))
    async with tools_with() as tools:
        await send(inbox(tmp_path, "a.md"), message(), tools=tools)

    assert sorted(os.listdir(tmp_path)) == sorted([kept.name, linked.name, "a.md"])


async def test_hostile_text_is_written_as_text(tmp_path: Path) -> None:
    async with tools_with() as tools:
        await send(inbox(tmp_path, "a.md"), message("{job} \ud800\0\r\n{{ 7 * 7 }}"), tools=tools)

    assert (tmp_path / "a.md").read_bytes() == "{job} \ufffd\ufffd\r\n{{ 7 * 7 }}\n".encode()


async def test_a_disk_that_does_not_answer_costs_one_thread_and_no_other_target(tmp_path: Path) -> None:
    """Nothing more is handed to it until it answers."""
    hangs = FileTarget("hangs", "a.md", tmp_path)
    disk_answers = threading.Event()
    async with tools_with() as tools:
        key = (hangs.name, hangs.base, hangs.template)
        hanging = asyncio.create_task(tools.disks.call(key, disk_answers.wait))
        await asyncio.sleep(0)
        refused = [await _refused(hangs, tools) for _ in range(3)]
        await send(inbox(tmp_path, "b.md"), message(), tools=tools)
        disk_answers.set()
        await hanging
        await send(hangs, message(), tools=tools)

    assert {str(each) for each in refused} == {"its disk gives no answer: an earlier try still hangs"}
    assert not any(each.permanent for each in refused)
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
