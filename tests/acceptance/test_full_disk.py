"""The disk is full: it is said, nothing is lost, and all goes on by itself when there is room again."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.accounts import PROMPT, asked_once_each, each_has_one
from support.namespace import NotThere
from support.small_disk import EnclosedWorkplace, SmallDisk, mounted
from support.workplace import PATIENCE, DaemonProcess, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

SECOND = timedelta(seconds=1)
CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
jobs:
  - {{name: pulse, schedule: every 1s, prompt: "{prompt}"}}
"""


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
    made.configure(CONFIG.format(url=primary.base_url, prompt=PROMPT))
    return made


def said(daemon: DaemonProcess, words: str) -> bool:
    return words in daemon.log.read_text("utf-8")


def test_an_answer_outlasts_a_full_disk_and_planning_goes_on_when_there_is_room(
    place: EnclosedWorkplace, disk: SmallDisk, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("worth keeping").after(1), Reply.text("back again"))

    with place.daemon(*place.command("start")) as daemon:
        primary.wait_received(1, within=PATIENCE)
        disk.fill()
        eventually(lambda: said(daemon, "the database takes no writes: database or disk is full"))
        eventually(lambda: primary.in_flight == 0)
        alive, ready = daemon.get("/healthz"), daemon.get("/readyz")
        refused = place.run("job", "pause", "pulse")
        asked = len(primary.requests)
        disk.free()
        eventually(lambda: said(daemon, "the database takes writes again, after"), within=PATIENCE)
        primary.wait_received(asked + 1, within=PATIENCE)
        assert daemon.stop() == 0

    assert asked == 1, "nothing is asked that cannot be written down first"
    assert alive[0] == 200, "a service manager that ends it now loses the answer"
    assert (ready[0], '"writing":false' in ready[1]) == (503, True)
    assert refused.code == 69
    assert "disk is full" in refused.err
    first = place.rows("SELECT state, output, tries FROM runs ORDER BY id LIMIT 1")
    assert first == [{"state": "succeeded", "output": "worth keeping", "tries": 1}]
    assert {row["outcome"] for row in place.rows("SELECT outcome FROM attempts")} == {"succeeded"}
    each_has_one(place, "pulse", SECOND)
    asked_once_each(primary, place)
    assert place.run("audit").code == 0


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
