"""The machine's zone changes under a daemon whose configuration names none: noticed, and planned by anew."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.namespace import Namespace, NotThere, mounting
from support.small_disk import EnclosedWorkplace
from support.workplace import eventually

from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
jobs:
  - {{name: morning, schedule: "0 8 * * *", prompt: Good morning.}}
"""
# What this user may not read of it is not needed.
OWN_ETC = 'mount -t tmpfs tmpfs "$2"; cp -a /etc/. "$2" 2>&- || true; mount --bind "$2" /etc'
SET_ZONE = 'ln -sfn "/usr/share/zoneinfo/$1" /etc/localtime && echo "$1" > /etc/timezone'


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Namespace]:
    """A machine with an /etc of its own, where nothing but that says the zone."""
    monkeypatch.delenv("TZ", raising=False)
    (tmp_path / "etc").mkdir()
    try:
        with mounting(OWN_ETC, str(tmp_path / "etc")) as made:
            yield made
    except NotThere as why:
        pytest.skip(str(why))


def set_zone(machine: Namespace, name: str) -> None:
    machine.do("sh", "-c", SET_ZONE, "sh", name)


def timetables(workplace: EnclosedWorkplace) -> list[str]:
    query = "SELECT timetable FROM schedule_periods WHERE job = 'morning' ORDER BY id"
    return [row["timetable"] for row in workplace.rows(query)]


def test_a_change_of_the_machines_zone_is_noticed_within_one_wait(
    tmp_path: Path, machine: Namespace, primary: ThreadedLoopback
) -> None:
    workplace = EnclosedWorkplace(tmp_path, namespace=machine)
    workplace.configure(CONFIG.format(url=primary.base_url))
    set_zone(machine, "Europe/Berlin")

    with workplace.daemon(*workplace.command("start")) as daemon:
        before = timetables(workplace)
        set_zone(machine, "Asia/Tokyo")
        eventually(lambda: len(timetables(workplace)) == 2)
        log = daemon.log.read_text("utf-8")
        daemon.stop()

    assert "the machine's time zone has changed" in log
    assert ["Europe/Berlin" in each for each in before] == [True]
    assert ["Asia/Tokyo" in each for each in timetables(workplace)] == [False, True]
    assert workplace.run("audit").code == 0
