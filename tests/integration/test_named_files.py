"""Files that a user names: a pipe into which nobody writes is not waited for, a device is not replaced."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cli_ground import World

from jobs.errors import UsageError
from jobs.store import backup
from scheduler.cli.job_drafts import JobFile

PATIENCE = 60


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A house with a database."""
    return World(tmp_path)


def a_pipe(directory: Path) -> Path:
    path = directory / "pipe"
    os.mkfifo(path)
    return path


def a_link_to_a_pipe(directory: Path) -> Path:
    path = directory / "link"
    path.symlink_to(a_pipe(directory))
    return path


def a_device(directory: Path) -> Path:
    """Return a device of our own like /dev/null."""
    path = directory / "device"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root can make devices")
    return path


Make = Callable[[Path], Path]
KINDS: list[Make] = [a_pipe, a_link_to_a_pipe, a_device]


def run_beside_a_late_writer(world: World, file: Path, *words: str) -> tuple[int, str]:
    """Run a command that may wait for a writer: one comes when it has waited too long."""
    late = threading.Timer(PATIENCE, lambda: os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK)))
    late.start()
    said = world.run(*words)
    waited = not late.is_alive()
    late.cancel()
    assert not waited, "it has waited for a writer"
    return said.code, said.err


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("force", [("--force",), ()])
def test_a_backup_never_takes_the_place_of_a_pipe_or_a_device(
    world: World, make: Make, force: tuple[str, ...]
) -> None:
    file = make(world.home)
    before = os.stat(file, follow_symlinks=False)

    code, said = run_beside_a_late_writer(world, file, "db", "backup", str(file), *force)

    told = f"{file} is no earlier backup, and is not replaced" if force else "is there already"
    assert (code, told in said) == (2, True), said
    assert os.stat(file, follow_symlinks=False) == before
    assert [each.name for each in world.home.iterdir() if each.name.endswith(".part")] == []


def test_neither_does_a_backup_that_no_command_asked_for(world: World) -> None:
    path = Path(world.settings.database.removeprefix("sqlite:///"))
    device = a_pipe(world.home)

    with pytest.raises(UsageError, match="is no file, and is not replaced"):
        backup.back_up(path, device)

    assert device.is_fifo()


@pytest.mark.parametrize("make", KINDS)
def test_a_pipe_or_a_device_is_no_backup_to_restore(world: World, make: Make) -> None:
    file = make(world.home)

    code, said = run_beside_a_late_writer(world, file, "db", "restore", str(file))

    assert (code, "is no backup of promptd: it is no file" in said) == (2, True), said
    assert world.run("db", "check").code == 0


def test_a_pipe_in_the_place_of_the_database_is_not_restored_over(world: World, tmp_path: Path) -> None:
    copy, path = tmp_path / "copy.db", Path(world.settings.database.removeprefix("sqlite:///"))
    assert world.run("db", "backup", str(copy)).code == 0
    path.unlink()
    os.mkfifo(path, 0o600)

    said = world.run("db", "restore", str(copy))

    assert (said.code, "is no file, and is not replaced" in said.err) == (2, True), said
    assert path.is_fifo()


def test_an_answers_body_is_not_waited_for_and_comes_through_a_pipe_with_a_writer(world: World) -> None:
    """As `<(…)` of a shell gives one."""
    pipe = a_pipe(world.home)
    words = ("classify", "--provider", "zai", "--status", "429", "--body")

    code, said = run_beside_a_late_writer(world, pipe, *words, str(pipe))
    assert (code, f"nobody writes into {pipe}" in said) == (2, True), said

    reader, writer = os.pipe()
    os.write(writer, b'{"error": {"code": "1113", "message": "Insufficient balance"}}')
    os.close(writer)
    told = world.json("classify", *words, f"/dev/fd/{reader}")
    os.close(reader)
    assert told["class"] == "quota_billing"


def test_a_pipe_in_the_place_of_a_job_file_is_told_of(world: World) -> None:
    """To write there would take its place."""
    pipe = a_pipe(world.home)
    late = threading.Timer(PATIENCE, lambda: os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)))
    late.start()

    with pytest.raises(UsageError, match=f"{pipe} is no file"):
        JobFile.at(pipe)

    late.cancel()
