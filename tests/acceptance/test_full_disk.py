"""The disk is full: it is said, nothing is lost, and all goes on by itself when there is room again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.namespace import NotThere
from support.outlasted import TAKES_NO_WRITES, TAKES_WRITES_AGAIN, configure, nothing_is_lost, said
from support.small_disk import EnclosedWorkplace, SmallDisk, mounted
from support.workplace import PATIENCE, eventually

from jobs.providers.loopback_thread import ThreadedLoopback


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of eight megabytes, where the state is kept."""
    try:
        with mounted(tmp_path / "state", size="8m") as made:
            yield made
    except NotThere as why:
        pytest.skip(str(why))


@pytest.fixture
def place(tmp_path: Path, disk: SmallDisk, primary: ThreadedLoopback) -> EnclosedWorkplace:
    made = EnclosedWorkplace(tmp_path, namespace=disk.namespace)
    configure(made, primary)
    return made


def test_an_answer_outlasts_a_full_disk_and_planning_goes_on_when_there_is_room(
    place: EnclosedWorkplace, disk: SmallDisk, primary: ThreadedLoopback
) -> None:
    with place.daemon(*place.command("start")) as daemon:
        primary.wait_received(1, within=PATIENCE)
        disk.fill()
        primary.let_go()
        eventually(lambda: said(daemon, TAKES_NO_WRITES + "database or disk is full"))
        eventually(lambda: primary.in_flight == 0)
        alive, ready = daemon.get("/healthz"), daemon.get("/readyz")
        refused = place.run("job", "pause", "pulse")
        asked = len(primary.requests)
        disk.free()
        eventually(lambda: said(daemon, TAKES_WRITES_AGAIN))
        primary.wait_received(asked + 1, within=PATIENCE)
        assert daemon.stop() == 0

    assert asked == 1, "nothing is asked that cannot be written down first"
    assert alive[0] == 200, "a service manager that ends it now loses the answer"
    assert (ready[0], '"writing":false' in ready[1]) == (503, True)
    assert refused.code == 69
    assert "disk is full" in refused.err
    nothing_is_lost(place, primary)


def test_a_start_on_a_full_disk_says_so_and_succeeds_when_there_is_room(
    place: EnclosedWorkplace, disk: SmallDisk
) -> None:
    """69, which a service manager tries again; 78 would be a mistake in the configuration."""
    disk.fill()
    refused = place.run("start")
    disk.free()

    with place.daemon(*place.command("start")) as daemon:
        stopped = daemon.stop()

    assert refused.code == 69
    assert "No space left on device" in refused.err
    assert stopped == 0


def test_a_read_only_database_is_said_at_the_start_and_by_commands(
    place: EnclosedWorkplace, disk: SmallDisk
) -> None:
    assert place.run("db", "upgrade").code == 0
    disk.remount("ro")
    refused = [place.run("start"), place.run("job", "pause", "pulse")]
    disk.remount("rw")
    with place.daemon(*place.command("start")) as daemon:
        stopped = daemon.stop()

    assert [result.code for result in refused] == [69, 69]
    assert all("Read-only file system" in result.err for result in refused), refused
    assert stopped == 0
