"""APScheduler's main loop ends by a fault of its own: the daemon notices, and no instant is lost."""

import sys
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from support import faulty_daemon
from support.workplace import Workplace, eventually

from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
jobs:
  - {{name: pulse, schedule: every 6s, prompt: "Are you there?"}}
"""


def test_a_scheduling_loop_that_has_ended_is_started_anew_and_every_instant_runs_once(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    workplace.configure(CONFIG.format(url=primary.base_url))
    launcher = str(Path(faulty_daemon.__file__))

    with workplace.daemon(sys.executable, launcher, "--config", str(workplace.config), "start") as daemon:
        workplace.wait_finished(3, within=300)
        log = daemon.log.read_text("utf-8")
        health = eventually(lambda: daemon.get("/healthz")[0] == 200)

    runs = workplace.rows("SELECT scheduled_for, started_at, state FROM runs ORDER BY scheduled_for LIMIT 3")
    instants = [datetime.fromisoformat(run["scheduled_for"]) for run in runs]
    assert log.count("the scheduling loop has ended; it is started anew") == 1
    assert health
    assert [run["state"] for run in runs] == ["succeeded"] * 3
    assert [later - earlier for earlier, later in pairwise(instants)] == [timedelta(seconds=6)] * 2
    first_late = datetime.fromisoformat(runs[0]["started_at"]) - instants[0]
    assert timedelta(seconds=2) < first_late, "the first instant fell into the fault"
