"""Telling systemd how the daemon stands (sd_notify(3)); silent where nobody listens."""

import socket
from collections.abc import Mapping


class Notifier:
    """Sends states to `$NOTIFY_SOCKET`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """Say that the first plan is made."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Say in words what is going on."""
        self._send(f"STATUS={status}")

    def reloading(self, *, monotonic_usec: int) -> None:
        """Say that a reload has begun, and when (CLOCK_MONOTONIC, µs); `ready` says that it is over."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_usec}\nSTATUS=Reloading")

    def stopping(self) -> None:
        """Say that the daemon drains."""
        self._send("STOPPING=1\nSTATUS=Draining")

    def watchdog(self) -> None:
        """Say that planner and writer are fresh."""
        self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            try:
                notify.sendto(state.encode(), self._address)
            except OSError:
                return  # systemd has gone away: the work goes on without it
