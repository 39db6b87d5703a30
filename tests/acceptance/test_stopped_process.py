"""A daemon is stopped for a minute (SIGSTOP), alone and beside another: its instants are accounted for."""

import signal
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.accounts import PROMPT, Line, asked_once_each, each_has_one, started_since
from support.workplace import PATIENCE, DaemonProcess, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

A_MINUTE = 62.0
SECOND = timedelta(seconds=1)
Pair = tuple[DaemonProcess, Workplace]
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
    """Return a workplace whose long run gets its answer when its provider is told to let go of it."""
    directory.mkdir()
    made = Workplace(directory)
    made.configure(CONFIG.format(url=pulses.base_url, slow=slow.base_url, prompt=PROMPT))
    slow.script(Endpoint.CHAT, Reply.text("said while nobody listened").held())
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
                stopped = _stopped_for_a_minute((single, alone), (first, shared), answering=(backup, other))
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
    assert len([line for line in while_first_stood if line.state == "succeeded"]) > A_MINUTE / 10
    for place, pulses, slow in ((alone, primary, backup), (shared, helper, other)):
        assert _long(place) == {"state": "succeeded", "tries": 1, "instance_id": 1}
        assert len(slow.requests) == 1
        for job in ("brief", "usual"):
            each_has_one(place, job, SECOND)
        asked_once_each(pulses, place)
        assert place.run("audit").code == 0


def _stopped_for_a_minute(*pairs: Pair, answering: Iterable[ThreadedLoopback]) -> datetime:
    """Stop daemons for a minute and let them go on; return when that began. Their long runs are answered."""
    since = eventually(lambda: _stopped_at_rest(pairs), within=5 * PATIENCE)
    try:
        for provider in answering:
            provider.let_go()
        time.sleep(A_MINUTE)
    finally:
        for daemon, _ in pairs:
            daemon.signal(signal.SIGCONT)
    return since


def _stopped_at_rest(pairs: Iterable[Pair]) -> datetime | None:
    """Stop daemons that have nothing under way but the long run; None where they had, and go on.

    A request that is stopped under way may time out, and its endpoint is left alone for a while then; a write
    that is stopped under way keeps everybody out.
    """
    if not all(_is_quiet(place) for _, place in pairs):
        return None
    since = datetime.now(UTC)
    for daemon, _ in pairs:
        daemon.signal(signal.SIGSTOP)
    eventually(lambda: all(_has_stopped(daemon.process.pid) for daemon, _ in pairs))
    if all(_rests(place) for _, place in pairs):
        return since
    for daemon, _ in pairs:
        daemon.signal(signal.SIGCONT)
    return None


def _has_stopped(process: int) -> bool:
    """Say whether all of its threads stand still (proc(5))."""
    threads = Path(f"/proc/{process}/task").glob("*/stat")
    try:
        return all(each.read_text().rpartition(")")[2].split()[0] == "T" for each in threads)
    except (FileNotFoundError, ProcessLookupError):  # one of them has just ended: look again
        return False


def _rests(workplace: Workplace) -> bool:
    """Say whether the first daemon, which stands still, has begun nothing else and keeps nobody out."""
    begun = workplace.rows("SELECT job FROM runs WHERE finished_at IS NULL AND instance_id = 1")
    with closing(sqlite3.connect(workplace.database, isolation_level=None, timeout=5)) as another:
        try:
            another.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
    return begun == [{"job": "long"}]


def _of_the_stop(workplace: Workplace, job: str, stopped: datetime) -> list[Line]:
    """Return the rows of the instants in that minute, its first and last seconds aside."""
    until = stopped + timedelta(seconds=A_MINUTE)
    found = each_has_one(workplace, job, SECOND)
    return [line for line in found if line.first < until - SECOND and line.last > stopped + SECOND]


def _is_quiet(workplace: Workplace) -> bool:
    """Say whether this second's runs have ended, and the next second is not near yet."""
    now = datetime.now(UTC)
    newest = workplace.rows("SELECT max(scheduled_for) AS at FROM runs")[0]["at"]
    begun = [row["job"] for row in workplace.rows("SELECT job FROM runs WHERE finished_at IS NULL")]
    this_second = datetime.fromisoformat(newest).replace(tzinfo=UTC) == now.replace(microsecond=0)
    return this_second and begun == ["long"] and 0.2 < now.microsecond / 1e6 < 0.7


def _long(workplace: Workplace) -> dict[str, object]:
    (row,) = workplace.rows("SELECT state, tries, instance_id FROM runs WHERE job = 'long'")
    return row
