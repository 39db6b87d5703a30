"""Nobody else may read or change the database and the keys: where they may, nothing is begun."""

import os
import socket
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
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


@pytest.fixture
def linked(tmp_path: Path, taken: int) -> tuple[World, Path]:
    """Return a house whose database is a link, and the file that it leads to."""
    world = World(tmp_path, config=f"{CONFIG}server: {{listen: '127.0.0.1:{taken}'}}\n")
    link, real = world.settings.state_dir / "promptd.db", tmp_path / "other" / "kept.db"
    real.parent.mkdir(0o700)
    link.rename(real)
    link.symlink_to("../other/kept.db")
    return world, real


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        ("kept.db", 0o644, "can be read by others (mode 0644); run `chmod 600 {}`"),
        ("kept.db-wal", 0o644, "can be read by others (mode 0644); run `chmod 600 {}`"),
        (".", 0o777, "is a directory in which everybody may put files (mode 0777); run `chmod o-w {}`"),
    ],
)
def test_behind_a_link_it_is_the_files_that_sqlite_uses_that_must_be_private(
    linked: tuple[World, Path], name: str, mode: int, said: str
) -> None:
    """SQLite keeps the others beside the file that a link leads to."""
    world, real = linked
    loose = real.parent / name
    if not loose.exists():
        loose.touch()
    loose.chmod(mode)

    started = world.run("start")
    doctor = world.json("doctor", "doctor", code=1)

    assert (started.code, started.err) == (78, f"{loose}: {said.format(loose)}\n")
    assert f"{loose} {said.partition(';')[0]}" in {
        each["seen"] for each in doctor["findings"] if each["name"] == "database files"
    }


def test_the_directory_of_the_link_is_looked_at_as_well(linked: tuple[World, Path]) -> None:
    """Whoever may put files there can put another database in its place."""
    world, _ = linked
    place = world.settings.state_dir
    assert list(file_modes.faults_of_database(place / "promptd.db")) == []
    place.chmod(0o1777)

    (fault,) = file_modes.faults_of_database(place / "promptd.db")

    assert fault.file == place


def test_nor_is_a_key_behind_a_link_used_where_everybody_may_replace_it(linked: tuple[World, Path]) -> None:
    world, real = linked
    link, key = world.settings.state_dir / "secret.key", real.with_name("a.key")
    link.rename(key)
    link.symlink_to(key)
    real.parent.chmod(0o777)

    with pytest.raises(ConfigError, match=f"{real.parent}: is a directory in which everybody may put files"):
        file_modes.require_private_key(link)


def test_a_check_tells_the_size_of_the_log_behind_a_link(linked: tuple[World, Path]) -> None:
    world, real = linked
    with closing(sqlite3.connect(real, isolation_level=None)) as raw:
        raw.execute("CREATE TABLE of_somebody (id INTEGER)")
        size = real.with_name("kept.db-wal").stat().st_size
        assert world.json("db-check", "db", "check")["wal_size"] == size > 0


def test_a_restore_replaces_what_a_link_leads_to(linked: tuple[World, Path], tmp_path: Path) -> None:
    """What was there stays beside it, and doctor counts it."""
    world, real = linked
    link, copy = world.settings.state_dir / "promptd.db", tmp_path / "copy.db"
    assert world.run("db", "backup", str(copy)).code == 0
    before = real.stat().st_ino

    done = world.json("db-restore", "db", "restore", str(copy))

    assert (link.is_symlink(), link.resolve()) == (True, real)
    assert real.stat().st_ino != before
    assert Path(done["before"]).stat().st_ino == before
    assert Path(done["before"]).parent == real.parent
    assert [each.name for each in link.parent.glob("*replaced*")] == []
    findings = world.json("doctor", "doctor", code=1)["findings"]
    assert [each["seen"][:20] for each in findings if each["name"] == "backups"] == ["1 beside the databas"]


def test_a_directory_above_in_which_everybody_may_replace_it_is_warned_of(tmp_path: Path, taken: int) -> None:
    """However private the state directory is; in one like /tmp nobody can rename what is another's."""
    home = tmp_path / "above" / "home"
    home.mkdir(parents=True)
    world = World(home, config=f"{CONFIG}server: {{listen: '127.0.0.1:{taken}'}}\n")
    above = home.parent
    for mode, warned in ((0o777, True), (0o1777, False)):
        above.chmod(mode)
        assert [each.file for each in file_modes.faults_above(world.settings.state_dir)] == [above] * warned
    above.chmod(0o777)

    started = world.run("start")
    told = [
        each
        for each in world.json("doctor", "doctor", code=1)["findings"]
        if each["name"] == "state directory"
    ]

    assert started.code == 69  # it comes as far as its port, which is taken
    assert ("warning", f"run `chmod o-w {above}`") in [(each["level"], each["mend"]) for each in told]


@pytest.mark.parametrize("loose", ["of the link", "of what it leads to"])
def test_of_a_linked_state_directory_both_ways_are_looked_at(tmp_path: Path, loose: str) -> None:
    link, real = tmp_path / "of the link" / "state", tmp_path / "of what it leads to" / "state"
    link.parent.mkdir()
    real.mkdir(0o700, parents=True)
    link.symlink_to(real)
    assert list(file_modes.faults_above(link)) == []
    (tmp_path / loose).chmod(0o777)

    (fault,) = file_modes.faults_above(link)

    assert fault.file == tmp_path / loose


def test_doctor_says_that_the_group_of_a_directory_may_replace_what_is_in_it(
    linked: tuple[World, Path],
) -> None:
    world, real = linked
    for directory in (world.settings.state_dir, real.parent):
        directory.chmod(0o770)

    findings = world.json("doctor", "doctor", code=1)["findings"]

    seen = {each["seen"]: (each["name"], each["level"]) for each in findings}
    state = f"{world.settings.state_dir}: its group may replace database and secret key (mode 0770)"
    assert seen[state] == ("state directory", "warning")
    assert seen[f"{real.parent}: its group may replace the database (mode 0770)"] == (
        "database files",
        "warning",
    )
    assert sum("its group may" in each for each in seen) == 2
