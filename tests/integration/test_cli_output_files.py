"""Files and databases that this user may not have: each says who he is and what to do, and none is a bug."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_cli_ground import World

from scheduler.cli import main
from scheduler.config.in_force import handed_over

NOBODY = 65534


@contextmanager
def a_place() -> Iterator[Path]:
    """Give a directory that everybody may enter: those of pytest are for its own user."""
    with tempfile.TemporaryDirectory(prefix="promptd-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@contextmanager
def closed(directory: Path) -> Iterator[None]:
    """Close a directory to this user, who is not root meanwhile."""
    before, user = directory.stat().st_mode, os.geteuid()
    directory.chmod(0)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        directory.chmod(before)


def test_a_database_that_this_user_may_not_read_is_exit_69_and_not_a_broken_one() -> None:
    with a_place() as place:
        world = World(place)
        assert world.run("db", "check").code == 0
        with closed(place / "state"):
            said = [world.run(*words) for words in (("db", "check"), ("run", "list"))]
    assert [each.code for each in said] == [69, 69]
    assert all("not for this user to read; ask as root" in each.err for each in said)


@pytest.mark.parametrize("words", [("db", "backup"), ("run", "export", "--output")])
def test_a_file_that_cannot_be_written_where_it_should_is_told_in_words(words: tuple[str, ...]) -> None:
    with a_place() as place:
        world = World(place)
        (place / "shut").mkdir()
        for path in (place / "state", *(place / "state").iterdir()):
            path.chmod(0o755)
        with closed(place / "shut"):
            said = world.run(*words, str(place / "shut" / "file"))
        assert os.listdir(place / "shut") == []
    assert said.code == 2
    assert "cannot write" in said.err
    assert "Permission denied" in said.err


@pytest.mark.parametrize("words", [("db", "backup"), ("run", "export", "--output")])
def test_a_relative_path_is_refused_where_the_directory_is_not_the_callers(
    tmp_path: Path,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World(tmp_path)
    monkeypatch.chdir(tmp_path)
    line = ["--config", str(world.file), *words, "mine"]
    code = main(line, environ=world.environ, in_force=handed_over(world.settings), nowhere=True)
    assert code == 2
    assert "name the whole path" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
def test_output_that_nobody_can_write_is_no_bug(tmp_path: Path, redirect: str) -> None:
    """The shell closes or fills standard output; what a command then opens is not taken for it."""
    world = World(tmp_path)
    line = f'"$0" -m scheduler.cli --config "$1" job list {redirect}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, str(world.file)],
        env={**world.environ, "PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    said = "the output cannot be written: No space left on device" if "full" in redirect else ""
    assert (done.returncode, said in done.stderr, "bug" in done.stderr) == (1 if said else 0, True, False)
    assert len(done.stderr.splitlines()) == (1 if said else 0)
