"""What systemd is told of a reload, as `Type=notify-reload` wants it (systemd.service(5), from 253 on)."""

import signal
import socket
import time
from collections.abc import Iterator

import pytest
from support.workplace import PATIENCE, DaemonProcess, Workplace

from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
jobs: [{{name: pulse, schedule: "{schedule}", prompt: Hi.}}]
"""


@pytest.fixture
def manager(workplace: Workplace) -> Iterator[socket.socket]:
    """The socket at which systemd listens (sd_notify(3)), for a daemon that this workplace starts."""
    address = str(workplace.directory / "notify")
    workplace.environ["NOTIFY_SOCKET"] = address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(PATIENCE)
        yield listening


def told_of_a_reload(manager: socket.socket, daemon: DaemonProcess) -> list[dict[str, str]]:
    """Send SIGHUP; return what is told from its beginning to its end."""
    daemon.signal(signal.SIGHUP)
    told: list[dict[str, str]] = []
    while True:
        said = dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())
        if told or "RELOADING" in said:
            told.append(said)
        if told and "READY" in said:
            return told


def test_a_reload_is_told_with_the_time_of_its_beginning_and_its_end_also_where_the_file_is_refused(
    workplace: Workplace, primary: ThreadedLoopback, manager: socket.socket
) -> None:
    """The time is the monotonic clock's, in microseconds, not before the signal: systemd insists."""
    workplace.configure(CONFIG.format(url=primary.base_url, schedule="@daily"))
    with workplace.daemon() as daemon:
        for schedule in ("@hourly", "never ever"):
            workplace.configure(CONFIG.format(url=primary.base_url, schedule=schedule))
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            begun, *_, ended = told_of_a_reload(manager, daemon)
            after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

            assert before <= int(begun["MONOTONIC_USEC"]) <= after
            assert "READY" not in begun
            assert (ended["READY"], ended["STATUS"]) == ("1", "1 jobs scheduled")
