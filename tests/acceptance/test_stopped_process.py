"""A daemon is stopped for a minute (SIGSTOP), alone and beside another: its instants are accounted for."""

import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.accounts import PROMPT, Line, asked_once_each, each_has_one, started_since
from support.workplace import PATIENCE, DaemonProcess, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

A_MINUTE = 62.0
SECOND = timedelta(seconds=1)
CONFIG = """
model: {{provider: custom, name: pulses, base_url: "{url}", model: small, api_key: no-key-required}}
jobs:
  - {{name: brief, schedule: every 1s, misfire_grace_time: 5s, prompt: "{prompt}"}}
  - {{name: usual, schedule: every 1s, prompt: "{prompt}"}}
  - name: long
    schedule: every 1s
    max_runs: 1
    prompt: "{prompt}"
    model: {{provider: custom, name: slow, base_url: "{slow}", model: small, api_key: no-key-required}}
"""


def configured(directory: Path, pulses: ThreadedLoopback, slow: ThreadedLoopback) -> Workplace:
    directory.mkdir()
    made = Workplace(directory)
    made.configure(CONFIG.format(url=pulses.base_url, slow=slow.base_url, prompt=PROMPT))
    slow.script(Endpoint.CHAT, Reply.text("said while nobody listened").after(30))
    return made


def test_a_daemon_that_was_stopped_for_a_minute_owes_nothing_and_loses_no_run_to_another(
    tmp_path: Path, primary: ThreadedLoopback, backup: ThreadedLoopback, helper: ThreadedLoopback
) -> None:
    """Two places, so that one minute is enough: in one it is alone, in the other a second daemon goes on."""
    with ThreadedLoopback() as other:
        alone = configured(tmp_path / "alone", primary, backup)
        shared = configured(tmp_path / "shared", helper, other)
        with alone.daemon() as single, shared.daemon() as first:
            backup.wait_received(1, within=PATIENCE)
            other.wait_received(1, within=PATIENCE)
            with shared.daemon() as second:
                eventually(lambda: _is_quiet(alone) and _is_quiet(shared))
                stopped = _stopped_for_a_minute(single, first)
                for place in (alone, shared):
                    started_since(place, "usual", stopped + timedelta(seconds=A_MINUTE))
                    started_since(place, "brief", stopped + timedelta(seconds=A_MINUTE))
                    eventually(lambda place=place: _long(place)["state"] != "running")
                for daemon in (single, second, first):
                    assert daemon.stop() == 0

    assert {line.reason for line in _of_the_stop(alone, "brief", stopped)} >= {"late"}
    spared = {line.reason for line in _of_the_stop(alone, "usual", stopped)}
    assert "late" not in spared, "every second has two minutes of grace"
    while_first_stood = _of_the_stop(shared, "usual", stopped)
    assert len([line for line in while_first_stood if line.state == "succeeded"]) > A_MINUTE / 2
    for place, pulses, slow in ((alone, primary, backup), (shared, helper, other)):
        assert _long(place) == {"state": "succeeded", "tries": 1, "instance_id": 1}
        assert len(slow.requests) == 1
        for job in ("brief", "usual"):
            each_has_one(place, job, SECOND)
        asked_once_each(pulses, place)
        assert place.run("audit").code == 0


def _stopped_for_a_minute(*daemons: DaemonProcess) -> datetime:
    """Stop processes for a minute and let them go on; return when that began."""
    since = datetime.now(UTC)
    for daemon in daemons:
        daemon.signal(signal.SIGSTOP)
    try:
        time.sleep(A_MINUTE)
    finally:
        for daemon in daemons:
            daemon.signal(signal.SIGCONT)
    return since


def _of_the_stop(workplace: Workplace, job: str, stopped: datetime) -> list[Line]:
    """Return the rows of the instants in that minute, its first and last seconds aside."""
    until = stopped + timedelta(seconds=A_MINUTE)
    found = each_has_one(workplace, job, SECOND)
    return [line for line in found if line.first < until - SECOND and line.last > stopped + SECOND]


def _is_quiet(workplace: Workplace) -> bool:
    """Say whether this second's runs have ended, and the next second is not near yet.

    A request that is stopped under way may time out, and its endpoint is left alone for a while then; a write
    that is stopped under way keeps everybody out.
    """
    now = datetime.now(UTC)
    newest = workplace.rows("SELECT max(scheduled_for) AS at FROM runs")[0]["at"]
    begun = [row["job"] for row in workplace.rows("SELECT job FROM runs WHERE finished_at IS NULL")]
    this_second = datetime.fromisoformat(newest).replace(tzinfo=UTC) == now.replace(microsecond=0)
    return this_second and begun == ["long"] and 0.2 < now.microsecond / 1e6 < 0.7


def _long(workplace: Workplace) -> dict[str, object]:
    (row,) = workplace.rows("SELECT state, tries, instance_id FROM runs WHERE job = 'long'")
    return row
