"""Nobody else may read or change the database and the keys: where they may, nothing is begun."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli_ground import CONFIG, World

from jobs.errors import ConfigError
from jobs.store import file_modes
from jobs.store.engine import open_engine

ROOT, SERVICE, STRANGER = 0, 988, 1234


def facts(mode: int, *, owner: int = SERVICE) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, owner, 1, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o600, None),
        (0o400, None),
        (0o700, None),
        (0o640, "can be read by others (mode 0640)"),
        (0o604, "can be read by others (mode 0604)"),
        (0o620, "can be read and changed by others (mode 0620)"),
        (0o666, "can be read and changed by others (mode 0666)"),
    ],
)
def test_a_private_file_is_its_owners_alone(mode: int, said: str | None) -> None:
    found = file_modes.wrong_with_file(facts(stat.S_IFREG | mode), trusted={ROOT, SERVICE})

    assert (found and found[0]) == said
    assert found is None or found[1] == "chmod 600"


def test_a_private_file_is_ours_or_roots() -> None:
    for owner, right in ((ROOT, True), (SERVICE, True), (STRANGER, False)):
        found = file_modes.wrong_with_file(facts(stat.S_IFREG | 0o600, owner=owner), trusted={ROOT, SERVICE})
        assert (found is None) == right


@pytest.mark.parametrize(
    ("mode", "mend"), [(0o700, None), (0o755, None), (0o770, None), (0o777, "chmod o-w"), (0o1777, "")]
)
def test_a_directory_in_which_everybody_may_put_files_is_none_for_keys(mode: int, mend: str | None) -> None:
    """To `/tmp` nobody is told to do anything: it is meant to be so."""
    found = file_modes.wrong_with_directory(facts(stat.S_IFDIR | mode), trusted={SERVICE})

    assert (found[1] if found else None) == mend


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
def test_a_database_that_others_may_read_is_not_opened_for_writing(tmp_path: Path, end: str) -> None:
    """Nor one whose neighbours they may read. To look at it, nobody has to be trusted."""
    path = tmp_path / "promptd.db"
    url = f"sqlite:///{path}"
    open_engine(url, writes=True).dispose()
    loose = path.with_name(f"{path.name}{end}")
    loose.touch()
    loose.chmod(0o644)

    with pytest.raises(ConfigError, match=rf"mode 0644\); run `chmod 600 {loose}`"):
        open_engine(url, writes=True)
    open_engine(url, writes=False).dispose()


def test_a_database_in_everybodys_directory_is_not_opened_for_writing(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)

    with pytest.raises(ConfigError, match="use a directory of your own"):
        open_engine(f"sqlite:///{tmp_path / 'promptd.db'}", writes=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_works_with_the_files_of_the_services_user_and_with_no_strangers(tmp_path: Path) -> None:
    """A root shell beside a service that is stopped."""
    path = tmp_path / "promptd.db"
    path.touch(0o600)
    os.chown(tmp_path, SERVICE, SERVICE)
    os.chown(path, SERVICE, SERVICE)
    assert list(file_modes.faults_of_database(path)) == []

    os.chown(path, STRANGER, STRANGER)

    (fault,) = file_modes.faults_of_database(path)
    assert "belongs to another user (uid 1234)" in str(fault)


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port that cannot be had: a daemon that gets as far as that ends there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("name", ["promptd.db", "secret.key"])
@pytest.mark.parametrize("words", [("start",), ("ask", "hello")])
def test_commands_that_would_write_refuse_with_78_and_the_mend(
    tmp_path: Path, taken: int, name: str, words: tuple[str, ...]
) -> None:
    world = World(tmp_path, config=f"{CONFIG}server: {{listen: '127.0.0.1:{taken}'}}\n")
    loose = world.settings.state_dir / name
    loose.chmod(0o644)

    said = world.run(*words)

    assert (said.code, said.out) == (78, "")
    assert said.err == f"{loose}: can be read by others (mode 0644); run `chmod 600 {loose}`\n"


@pytest.mark.parametrize("words", [("auth", "reset", "zai"), ("job", "pause", "digest"), ("db", "prune")])
def test_so_do_commands_that_need_the_database_only(tmp_path: Path, words: tuple[str, ...]) -> None:
    world = World(tmp_path)
    with world.ledger() as connection:
        world.see_jobs(connection)
    (world.settings.state_dir / "promptd.db").chmod(0o660)

    assert world.run(*words).code == 78
    assert world.run("run", "list").code == 0
