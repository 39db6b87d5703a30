"""Daemons that hang, each in its own way, and one that only waits, beside whatever else is tested."""

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from support.boot.frozen import all_but_the_first_thread
from support.boot.machine import Machine
from support.boot.network import network_of
from support.boot.service import Service
from support.workplace import PATIENCE, eventually

_CONFIG = """
server: {{listen: "127.0.0.1:{port}"}}
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
limits: {{drain_timeout: 5m}}
jobs:
  - {{name: pulse, schedule: every 2s, prompt: "Say something."}}
  - name: long
    schedule: null
    prompt: Hi.
    gather: {{command: "until test -e {go}; do sleep 0.2; done", shell: true, timeout: 5m}}
"""
_GO = "/etc/promptd-draining/go"
_PORT = 9470
_FED = 12.0  # a beat every 5 s, and time for a busy machine
_FED_WHEN_LOCKED = 30.0  # a write waits 10 s for the lock, behind another one that does


@dataclass
class Troubled:
    """Daemons: stopped whole; with a loop that turns alone; with a locked database; draining for long.

    `spoke` says what the second one answered on /healthz as it hung.
    """

    stopped: Service
    alone: Service
    locked: Service
    draining: Service
    spoke: int
    locked_since: float
    locked_pid: int
    _lock: ExitStack

    def relieve(self) -> None:
        """Unlock, and let end what is waited for, once a watchdog that is not fed would have bitten."""
        over = self.locked_since + _FED_WHEN_LOCKED + 5
        eventually(lambda: time.monotonic() > over, within=_FED_WHEN_LOCKED + PATIENCE)
        self._lock.close()
        self.draining.machine.put(_GO, "")


@contextmanager
def troubled(machine: Machine, url: str) -> Iterator[Troubled]:
    """Start them, let each of them have a run, and bring the trouble; remove them at the end."""
    with ExitStack() as removed, ExitStack() as lock, ExitStack() as thaw:
        names = ("stopped", "alone", "locked", "draining")
        every = [Service(machine, f"promptd-{name}") for name in names]
        stopped, alone, locked, draining = every
        for number, each in enumerate(every):
            removed.callback(each.remove)
            each.install()
            fed = _FED_WHEN_LOCKED if each is locked else _FED
            each.drop_in("watchdog", f"[Service]\nWatchdogSec={fed}\nTimeoutStopSec=10min\n")
            each.configure(_CONFIG.format(url=url, port=_PORT + number, go=_GO))
        machine.run("systemctl", "start", *(each.name for each in every))
        for each in every:
            each.start()
            each.ended(1)
        assert draining.promptd("job", "run", "--detach", "long").code == 0
        draining.systemctl("stop", "--no-block")
        os.kill(stopped.pid, signal.SIGSTOP)
        thaw.enter_context(all_but_the_first_thread(alone.pid))
        lock.enter_context(locked.locked())
        yield Troubled(
            *every,
            _asked(machine, _PORT + 1),
            locked_since=time.monotonic(),
            locked_pid=locked.pid,
            _lock=lock,
        )


def _asked(machine: Machine, port: int) -> int:
    """Return the status of /healthz."""
    with network_of(machine.leader):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code
