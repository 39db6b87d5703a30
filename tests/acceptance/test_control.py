"""Beside a running daemon: commands that it carries out, and what operators ask of it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.workplace import PATIENCE, PROMPTD, DaemonProcess, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
limits: {{drain_timeout: 20s}}
jobs:
  - {{name: by-hand, schedule: null, prompt: "hello {{{{ vars.who }}}}", vars: {{who: you}}}}
"""
PULSE = "name: pulse\nschedule: every 1s\nprompt: beat\n"


@pytest.fixture
def house(workplace: Workplace, primary: ThreadedLoopback) -> Workplace:
    """A configuration with one job, that is run by hand, and one provider."""
    workplace.configure(CONFIG.format(url=primary.base_url))
    return workplace


def run_of(house: Workplace, run_id: int) -> dict[str, Any]:
    (row,) = house.rows("SELECT * FROM runs WHERE id = ?", run_id)
    return row


def ended(house: Workplace, run_id: int) -> dict[str, Any]:
    return eventually(lambda: row if (row := run_of(house, run_id))["finished_at"] else None)


def states(house: Workplace, job: str) -> list[str]:
    query = "SELECT state, reason FROM runs WHERE job = ? ORDER BY id"
    return [f"{row['state']} {row['reason'] or ''}".strip() for row in house.rows(query, job)]


@contextmanager
def begun(house: Workplace, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Begin a command that waits for something; it is gone when the block ends."""
    process = subprocess.Popen(
        [str(PROMPTD), "--config", str(house.config), *words],
        cwd=house.directory,
        env=house.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def children_of(daemon: DaemonProcess) -> list[int]:
    path = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def test_a_run_is_handed_over_watched_cancelled_and_repeated(
    house: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("never said").silent(), Reply.text("said"))
    with house.daemon():
        handed = house.run("job", "run", "by-hand", "--detach", "--var", "who=world")
        run_id = int(handed.out)
        primary.wait_received(1, within=PATIENCE)
        cancelled = house.run("run", "cancel", str(run_id))
        repeated = house.run("run", "retry", str(run_id))
    first, second = run_of(house, run_id), run_of(house, run_id + 1)
    assert (handed.code, cancelled.code, repeated.code) == (0, 0, 0), (handed, cancelled, repeated)
    assert (first["state"], first["reason"]) == ("cancelled", "operator")
    assert first["cancel_requested"] is None, "its daemon is told, and reads no note of it at its next beat"
    assert (second["state"], second["trigger"], second["parent_id"]) == ("succeeded", "retry", run_id)
    assert second["scheduled_for"] == first["scheduled_for"]
    assert [asked.prompt for asked in primary.received()] == ["hello world", "hello world"]
    assert repeated.out == "said\n"


def test_a_job_comes_is_paused_and_goes_while_the_daemon_runs(
    house: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("beat"))
    with house.daemon():
        added = house.run("job", "add", "-", stdin=PULSE)
        eventually(lambda: "succeeded" in states(house, "pulse"))
        paused = house.run("job", "pause", "pulse")
        eventually(lambda: "skipped paused" in states(house, "pulse"))
        while_paused = len([state for state in states(house, "pulse") if state == "succeeded"])
        house.run("job", "resume", "pulse")
        eventually(lambda: states(house, "pulse").count("succeeded") > while_paused)
        removed = house.run("job", "remove", "pulse", "--yes")
        silent = len(states(house, "pulse"))
    assert [each.code for each in (added, paused, removed)] == [0, 0, 0]
    assert "the daemon has applied it" in added.out + removed.out
    assert len(states(house, "pulse")) - silent <= 1, "what had begun may end"
    assert not (house.directory / "jobs.d" / "pulse.yaml").exists()


def test_a_faulty_configuration_is_refused_with_every_line_and_changes_nothing(house: Workplace) -> None:
    with house.daemon():
        sound = house.config.read_text()
        house.config.write_text(sound + "  - {name: second, schedule: every 0s, prompts: x}\n")
        refused = house.run("reload")
        house.config.write_text(sound + "  - {name: second, schedule: null, prompt: x}\n")
        applied = house.json("reload")
    assert refused.code == 78
    assert len([line for line in refused.err.splitlines() if line.startswith(f"{house.config}:")]) >= 2
    assert (applied["added"], applied["changed"], applied["removed"]) == (["second"], [], [])


def test_stop_waits_for_the_end_of_the_daemon_and_now_cancels_its_work(
    house: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("never said").silent())
    with house.daemon() as daemon:
        run_id = int(house.run("job", "run", "by-hand", "--detach").out)
        primary.wait_received(1, within=PATIENCE)
        with begun(house, "stop") as patient:
            eventually(lambda: daemon.get("/readyz")[0] == 503)
            hasty = house.run("stop", "--now")
            assert daemon.process.wait(1) == 0, "it has ended when `stop` says so"
            assert (hasty.code, patient.wait(PATIENCE)) == (0, 0)
        nobody = house.run("stop")
    assert (run_of(house, run_id)["state"], run_of(house, run_id)["reason"]) == ("cancelled", "shutdown")
    assert nobody.code == 69
    assert os.listdir(house.directory / "state").count("control.sock") == 0


def test_a_killed_daemon_takes_along_what_it_carried_out_and_its_socket_is_taken_over(
    house: Workplace,
) -> None:
    with house.daemon() as daemon, begun(house, "ask", "-") as caller:
        (child,) = eventually(lambda: children_of(daemon) or None)
        daemon.signal(signal.SIGKILL)
        _, said = caller.communicate(timeout=PATIENCE)
        eventually(lambda: not Path(f"/proc/{child}").exists())
    assert caller.returncode == 69
    assert "the daemon has ended" in said
    with house.daemon():
        assert house.json("reload")["ok"]


def test_a_run_of_another_process_is_cancelled_through_the_database(
    house: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("never said").silent())
    with begun(house, "job", "run", "by-hand") as alone:
        primary.wait_received(1, within=PATIENCE)
        cancelled = house.run("run", "cancel", "1")
        _, said = alone.communicate(timeout=PATIENCE)
    assert cancelled.code == 0
    assert (alone.returncode, "cancelled" in said) == (1, True), "130 is for who interrupts it"
    assert ended(house, 1)["state"] == "cancelled"
