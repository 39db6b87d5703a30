"""What a run has to say reaches its targets: real daemons and receivers, with kills and stops in between."""

import asyncio
import json
import signal
import sqlite3
import threading
from typing import Any

import pytest
from support.hostile import Way, said, stalled
from support.http_peer import HttpPeer, answer
from support.outlasted import TAKES_NO_WRITES
from support.outlasted import said as logged
from support.receiver import receiving
from support.workplace import PATIENCE, DaemonProcess, Workplace, eventually
from test_database_troubles import locked, quota

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
limits: {{drain_timeout: {drains}s}}
delivery:
  hook: {{webhook: "{hook}", timeout: {timeout}}}
  inbox: {{file: "out/{{job}}-{{run_id}}.md"}}
jobs:
  - {{name: digest, schedule: {schedule}, max_runs: 1, prompt: "Say it.",
     deliver: [{{to: hook, "on": {on}}}, inbox]{more}}}
"""
ACCEPTS, REFUSES, IS_GONE = (said(answer(status)) for status in (200, 503, 410))
ANSWER = "All is well."
DRAINS = 2


@pytest.fixture
def digest(workplace: Workplace, primary: ThreadedLoopback) -> Workplace:
    primary.script(Endpoint.CHAT, Reply.text(ANSWER))
    return workplace


def configure(
    place: Workplace,
    provider: ThreadedLoopback,
    hook: HttpPeer,
    *,
    timeout: str = "30s",
    schedule: str = "every 1s",
    more: str = "",
    on: str = "success",
    drains: int = DRAINS,
) -> None:
    place.configure(
        CONFIG.format(
            drains=drains,
            url=provider.base_url,
            hook=hook.url(),
            timeout=timeout,
            schedule=schedule,
            more=more,
            on=on,
        )
    )


def deliveries(place: Workplace, target: str = "hook") -> list[dict[str, Any]]:
    if not place.database.exists():
        return []
    return place.rows("SELECT * FROM deliveries WHERE target = ?", target)


def state(place: Workplace, target: str = "hook") -> str | None:
    found = deliveries(place, target)
    return found[0]["state"] if found else None


def hasten(place: Workplace) -> None:
    """Let nothing wait for its next try."""
    connection = sqlite3.connect(place.database, timeout=PATIENCE)
    with connection:
        connection.execute("UPDATE deliveries SET next_attempt_at = created_at WHERE state = 'pending'")
    connection.close()


def keys(hook: HttpPeer) -> list[str]:
    return [each.headers["idempotency-key"] for each in hook.taken]


class Gate:
    """A way that answers only when it is let."""

    def __init__(self, then: Way) -> None:
        self.open, self.answered = threading.Event(), threading.Event()
        self._then = then

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        while not self.open.is_set():
            await asyncio.sleep(0.01)
        await self._then(writer)
        self.answered.set()


def test_a_result_goes_where_the_job_wants_it(digest: Workplace, primary: ThreadedLoopback) -> None:
    with receiving(ACCEPTS) as hook:
        configure(digest, primary, hook)
        with digest.daemon():
            eventually(lambda: (state(digest), state(digest, "inbox")) == ("delivered", "delivered"))

    (run,) = digest.rows("SELECT * FROM runs")
    sent = json.loads(hook.taken[0].body)["data"]
    assert (sent["text"], sent["job"], sent["run_id"]) == (ANSWER, "digest", run["id"])
    assert (digest.directory / "state" / "out" / f"digest-{run['id']}.md").read_text().strip() == ANSWER
    assert [row["attempts"] for name in ("hook", "inbox") for row in deliveries(digest, name)] == [1, 1]
    assert run["state"] == "succeeded"


def test_a_failure_is_told_to_whom_it_concerns_and_alerts_and_heartbeats_go_out_too(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.error(400, message="no such thing"))
    with receiving(ACCEPTS) as hook:
        more = f', heartbeat: "{hook.url("/beat")}"'
        configure(workplace, primary, hook, more=more, on="failure")
        workplace.config.write_text(workplace.config.read_text() + "alerts: {to: hook, after_failures: 1}\n")
        with workplace.daemon():
            eventually(lambda: len([each for each in hook.taken if each.path == "/in"]) == 2)
    sent = [json.loads(each.body) for each in hook.taken if each.path == "/in"]
    pings = [each.path.partition("?")[0] for each in hook.taken if each.path != "/in"]

    (told,) = (each["data"] for each in sent if each["type"] == "run.failed")
    (alert,) = (each["data"] for each in sent if each["type"].startswith("alert"))
    assert "no such thing" in told["text"]
    assert "digest" in alert["subject"]
    assert pings == ["/beat/start", "/beat/fail"]


def test_a_receiver_that_fails_hangs_and_then_accepts_gets_one_delivery_by_one_key(
    digest: Workplace, primary: ThreadedLoopback
) -> None:
    """The file is written meanwhile: nobody waits for somebody else's target."""
    with receiving(REFUSES, stalled(), ACCEPTS) as hook:
        configure(digest, primary, hook, timeout="5s")
        with digest.daemon() as daemon:
            eventually(lambda: [row["failures"] for row in deliveries(digest)] == [1])
            (refused,) = deliveries(digest)
            hasten(digest)
            eventually(lambda: len(hook.taken) == 2)
            eventually(lambda: state(digest, "inbox") == "delivered")
            eventually(lambda: [row["failures"] for row in deliveries(digest)] == [2])
            (hung,) = deliveries(digest)
            hasten(digest)
            daemon.signal(signal.SIGHUP)  # what has hung is left alone for a while, but not after a reload
            eventually(lambda: state(digest) == "delivered")
            runs = digest.rows("SELECT * FROM runs")

    (row,) = deliveries(digest)
    assert ("503" in refused["last_error"], "5 s" in hung["last_error"]) == (True, True)
    assert (row["attempts"], row["failures"], row["last_error"]) == (3, 2, None)
    assert keys(hook) == [row["idempotency_key"]] * 3
    assert runs == digest.rows("SELECT * FROM runs")


def test_nothing_is_lost_when_a_daemon_is_killed_or_stopped_while_it_sends_or_before_it_has_written_so(
    digest: Workplace, primary: ThreadedLoopback
) -> None:
    """Killed while the receiver hangs, then after it has accepted, then stopped while it hangs.

    What arrives twice has the same key, and none of this counts as a failure of the receiver.
    """
    gate = Gate(ACCEPTS)
    with receiving(stalled(), gate, stalled(), ACCEPTS) as hook:
        configure(digest, primary, hook)
        with digest.daemon() as daemon:
            eventually(lambda: len(hook.taken) == 1)
            kill(daemon)
        with digest.daemon() as daemon:
            eventually(lambda: len(hook.taken) == 2)
            with locked(digest.database):
                gate.open.set()
                assert gate.answered.wait(PATIENCE)
                kill(daemon)
        (accepted,) = deliveries(digest)
        with digest.daemon() as daemon:
            eventually(lambda: len(hook.taken) == 3)
            code = daemon.stop()
        (stopped,) = deliveries(digest)
        with digest.daemon():
            eventually(lambda: state(digest) == "delivered")

    (row,) = deliveries(digest)
    assert accepted["state"] == "pending"
    assert (code, stopped["state"], stopped["sending_by"]) == (0, "pending", None)
    assert (row["attempts"], row["failures"]) == (4, 0)
    assert keys(hook) == [row["idempotency_key"]] * 4


def kill(daemon: DaemonProcess) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.process.wait()


def test_what_was_accepted_is_not_sent_again_while_the_database_takes_no_writes(
    digest: Workplace, primary: ThreadedLoopback
) -> None:
    gate = Gate(ACCEPTS)
    with receiving(gate) as hook:
        configure(digest, primary, hook)
        with digest.daemon() as daemon:
            eventually(lambda: len(hook.taken) == 1)
            with quota(daemon.process.pid, digest.database.with_name("promptd.db-wal").stat().st_size):
                gate.open.set()
                eventually(lambda: logged(daemon, TAKES_NO_WRITES))
                eventually(lambda: daemon.log.read_text().count("disk I/O error") > 2)
            eventually(lambda: state(digest) == "delivered")

    assert (len(hook.taken), deliveries(digest)[0]["attempts"]) == (1, 1)


def test_a_dead_letter_is_sent_when_somebody_asks(digest: Workplace, primary: ThreadedLoopback) -> None:
    """410: the receiver wants no more of it, so it is not tried again by itself."""
    with receiving(IS_GONE, ACCEPTS) as hook:
        configure(digest, primary, hook)
        with digest.daemon():
            eventually(lambda: state(digest) == "failed")
            asked = digest.run("delivery", "retry", "--failed")
            eventually(lambda: state(digest) == "delivered")

    assert (asked.code, deliveries(digest)[0]["attempts"]) == (0, 2)
    assert keys(hook) == [deliveries(digest)[0]["idempotency_key"]] * 2


def test_a_run_by_hand_beside_no_daemon_sends_its_own_once_before_it_ends(
    digest: Workplace, primary: ThreadedLoopback
) -> None:
    """What is refused then is left to a daemon, and takes nothing from the run; its heartbeat goes too."""
    with receiving(ACCEPTS, ACCEPTS, REFUSES) as hook:
        configure(digest, primary, hook, schedule="null", more=f', heartbeat: "{hook.url("/beat")}"')
        done = digest.run("job", "run", "digest")

    assert (done.code, done.out.strip()) == (0, ANSWER)
    assert [(row["state"], row["attempts"], row["failures"]) for row in deliveries(digest)] == [
        ("pending", 1, 1)
    ]
    assert state(digest, "inbox") == "delivered"
    assert [each.path.partition("?")[0] for each in hook.taken] == ["/beat/start", "/beat", "/in"]


def test_beside_a_daemon_that_does_not_know_its_targets_a_run_by_hand_sends_its_own(
    digest: Workplace, primary: ThreadedLoopback
) -> None:
    """What the daemon itself carries out it sends itself, and nobody waits for that."""
    gate = Gate(ACCEPTS)
    with receiving(gate) as hook:
        configure(digest, primary, hook, schedule="null")
        other = Workplace(digest.directory / "other")
        other.directory.mkdir()
        names = digest.config.read_text().replace("inbox", "elsewhere").replace(" hook:", " away:")
        other.configure(f"database: sqlite:///{digest.database}\n" + names.replace("to: hook", "to: away"))
        with digest.daemon():
            carried = digest.run("job", "run", "digest")
            waits = state(digest)
            gate.open.set()
            alone = other.run("job", "run", "digest")
            eventually(lambda: state(digest) == "delivered")
            ends = [deliveries(digest, name)[0] for name in ("hook", "away", "elsewhere")]

    assert (carried.code, waits, alone.code) == (0, "pending", 0), alone
    assert [(row["state"], row["attempts"]) for row in ends] == [("delivered", 1)] * 3


def test_a_second_signal_ends_a_daemon_that_waits_for_a_receiver_and_nothing_is_wrong(
    digest: Workplace, primary: ThreadedLoopback
) -> None:
    gate = Gate(ACCEPTS)
    with receiving(gate) as hook:
        configure(digest, primary, hook, timeout="10m", drains=600)
        with digest.daemon() as daemon:
            eventually(lambda: state(digest, "inbox") == "delivered" and hook.taken)
            daemon.signal()
            eventually(lambda: daemon.get("/readyz")[0] == 503)
            daemon.signal()
            daemon.process.wait(PATIENCE)
            said_at_the_end = daemon.log.read_text()

    assert "deliveries that were cut off" in said_at_the_end
    assert "never retrieved" not in said_at_the_end
    assert daemon.process.returncode == 0
