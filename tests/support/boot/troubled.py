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
limits: {{drain_timeout: 1h}}
defaults: {{timeout: 1h}}
jobs:
  - {{name: pulse, schedule: every 2s, prompt: "Say something."}}
  - name: long
    schedule: null
    prompt: Hi.
    gather: {{command: "until test -e {go}; do sleep 0.2; done", shell: true, timeout: 1h}}
"""
_GO = "/etc/promptd-draining/go"
_PORT = 9470
FED = 20.0  # a beat every 5 s, and time for a busy machine
_FED_WHEN_LOCKED = 45.0  # a write waits 10 s for the lock, behind another one that does
_ANSWERS_WITHIN = 5.0  # beside the watchdog's time
_MOST_TRIES = 5


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
    """Start them, let each of them have a run, and bring the trouble; they end with their machine."""
    with ExitStack() as lock, ExitStack() as thaw:
        names = ("stopped", "alone", "locked", "draining")
        every = [Service(machine, f"promptd-{name}") for name in names]
        stopped, alone, locked, draining = every
        for number, each in enumerate(every):
            each.install()
            fed = _FED_WHEN_LOCKED if each is locked else FED
            each.drop_in("watchdog", f"[Service]\nWatchdogSec={fed}\nTimeoutStopSec=1h\n")
            each.configure(_CONFIG.format(url=url, port=_PORT + number, go=_GO))
        machine.run("systemctl", "start", *(each.name for each in every))
        for each in every:
            each.start()
            each.ended(1)
        assert draining.promptd("job", "run", "--detach", "long").code == 0
        draining.systemctl("stop", "--no-block")
        os.kill(stopped.pid, signal.SIGSTOP)
        spoke = _left_alone(alone.pid, machine, _PORT + 1, thaw)
        lock.enter_context(locked.locked())
        yield Troubled(
            *every,
            spoke,
            locked_since=time.monotonic(),
            locked_pid=locked.pid,
            _lock=lock,
        )


def _left_alone(process: int, machine: Machine, port: int, thaw: ExitStack) -> int:
    """Stop all threads but the first, and return what that one says on /healthz; `thaw` lets them go.

    A thread that was stopped with the interpreter's lock in its hands has stopped the first one, too: then
    all of them are let go, and stopped at another moment.
    """
    for _ in range(_MOST_TRIES):
        with ExitStack() as held:
            held.enter_context(all_but_the_first_thread(process))
            spoke = _asked(machine, port)
            if spoke is not None:
                thaw.push(held.pop_all())
                return spoke
    raise AssertionError(f"no thread of {process} turns alone")


def _asked(machine: Machine, port: int) -> int | None:
    """Return the status of /healthz, None where nobody answers."""
    with network_of(machine.leader):
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/healthz", timeout=_ANSWERS_WITHIN
            ) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code
        except OSError:
            return None
