"""How a daemon stops and begins again: drained, hurried, killed; and what systemd is told of it."""

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from support.workplace import PATIENCE, DaemonProcess, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
limits: {{drain_timeout: {drain}, max_concurrent_runs: {at_once}}}
jobs:
"""
JOB = "  - {{name: {name}, schedule: every 2s, prompt: Take your time.}}\n"


def configure(
    workplace: Workplace, provider: ThreadedLoopback, *names: str, drain: str = "5m", at_once: int = 4
) -> None:
    head = CONFIG.format(url=provider.base_url, drain=drain, at_once=at_once)
    workplace.configure(head + "".join(JOB.format(name=name) for name in names or ("pulse",)))


def runs(workplace: Workplace) -> list[tuple[str, str, str | None]]:
    """Job, state and reason of every run but those that were not to begin: one was under way, say."""
    query = "SELECT job, state, reason FROM runs WHERE state NOT IN ('skipped', 'missed') ORDER BY id"
    return [(row["job"], row["state"], row["reason"]) for row in workplace.rows(query)]


def outcomes(workplace: Workplace) -> list[str]:
    return [row["outcome"] for row in workplace.rows("SELECT outcome FROM attempts ORDER BY id")]


def test_sigterm_lets_running_work_end(workplace: Workplace, primary: ThreadedLoopback) -> None:
    primary.script(Endpoint.CHAT, Reply.text("just in time").after(2))
    configure(workplace, primary)

    with workplace.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        code = daemon.stop()

    assert code == 0
    assert runs(workplace) == [("pulse", "succeeded", None)]


def test_work_that_outlasts_the_drain_timeout_is_cancelled_and_its_request_counts_as_unknown(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("never said").silent())
    configure(workplace, primary, drain="1s")

    with workplace.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        code = daemon.stop()

    assert code == 0
    assert runs(workplace) == [("pulse", "cancelled", "shutdown")]
    assert outcomes(workplace) == ["unknown"]


def test_a_draining_daemon_is_not_ready_and_a_second_sigterm_ends_it_now(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("never said").silent())
    configure(workplace, primary)

    with workplace.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        ready = daemon.get("/readyz")
        daemon.signal(signal.SIGTERM)
        draining = eventually(lambda: _unless_ready(daemon))
        alive = daemon.get("/healthz")
        code = daemon.stop()

    assert ready[0] == 200
    assert draining[0] == 503
    assert '"not_draining":false' in draining[1]
    assert alive[0] == 200
    assert code == 0
    assert runs(workplace) == [("pulse", "cancelled", "shutdown")]


def test_a_run_left_queued_at_the_stop_is_taken_up_by_the_next_start(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("never said").silent(), Reply.text("here at last"))
    configure(workplace, primary, "first", "second", drain="1s", at_once=1)

    with workplace.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        daemon.stop()
    left = runs(workplace)
    with workplace.daemon():
        workplace.wait_finished(2)

    assert left == [("first", "cancelled", "shutdown"), ("second", "queued", None)]
    assert runs(workplace)[:2] == [("first", "cancelled", "shutdown"), ("second", "succeeded", None)]
    assert outcomes(workplace)[:2] == ["unknown", "succeeded"]


def test_after_a_kill_the_interrupted_run_is_abandoned_and_the_next_instant_runs(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("never said").silent(), Reply.text("good again"))
    configure(workplace, primary)

    with workplace.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        daemon.signal(signal.SIGKILL)
        code = daemon.process.wait(PATIENCE)
    left = runs(workplace)[0]
    with workplace.daemon():
        workplace.wait_finished(2)

    interrupted, following = workplace.finished_runs(2)[:2]
    assert code == -signal.SIGKILL
    assert left == ("pulse", "running", None)
    assert (interrupted["state"], interrupted["reason"]) == ("abandoned", "process_gone")
    assert following["state"] == "succeeded"
    assert following["scheduled_for"] > interrupted["scheduled_for"]
    assert outcomes(workplace)[:2] == ["unknown", "succeeded"]


@contextmanager
def listening(workplace: Workplace) -> Iterator[socket.socket]:
    """Stand where systemd listens (sd_notify(3))."""
    address = str(workplace.directory / "notify")
    workplace.environ["NOTIFY_SOCKET"] = address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(address)
        notify.settimeout(PATIENCE)
        yield notify


def test_systemd_is_told_ready_once_the_first_plan_is_made_and_stopping_as_it_drains(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    """The first plan decides what fell due while no daemon was up: it stands in the ledger by then."""
    configure(workplace, primary)
    with workplace.daemon() as daemon:
        workplace.wait_finished()
        daemon.stop()
    eventually(lambda: _instants_since_the_last(workplace) >= 2)

    with listening(workplace) as notify, ThreadPoolExecutor(1) as listener:
        first = listener.submit(lambda: (notify.recv(4096), workplace.rows("SELECT trigger FROM runs")))
        with workplace.daemon() as daemon:
            said, rows = first.result(PATIENCE)
            daemon.stop()
        last = _until(notify, b"STOPPING=1")

    assert b"READY=1" in said.splitlines()
    assert {"trigger": "catch_up"} in rows
    assert b"STOPPING=1" in last.splitlines()


def _unless_ready(daemon: DaemonProcess) -> tuple[int, str] | None:
    answer = daemon.get("/readyz")
    return None if answer[0] == 200 else answer


def _instants_since_the_last(workplace: Workplace) -> int:
    newest: Any = workplace.rows("SELECT max(scheduled_for) AS at FROM runs")[0]["at"]
    return int((datetime.now(UTC) - datetime.fromisoformat(newest).replace(tzinfo=UTC)).total_seconds() // 2)


def _until(notify: socket.socket, wanted: bytes) -> bytes:
    """Read what was sent until one message says what is wanted."""
    while wanted not in (said := notify.recv(4096)):
        pass
    return said
