"""A wire between programs and a server, cut at a word: before it arrives, or before its answer does."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path


class Cut(Enum):
    """What is lost with the word."""

    WORD = auto()
    ANSWER = auto()


class Wire:
    """Passes on what both sides say; `port` is where programs connect to."""

    def __init__(self, to_port: int) -> None:
        self._to = ("127.0.0.1", to_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._armed: tuple[bytes, Cut] | None = None
        self.was_cut = threading.Event()
        self.is_down = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at(self, word: bytes, cut: Cut) -> None:
        """Cut the connection on which `word` is said next, and refuse others until `mend`."""
        self.was_cut.clear()
        self._armed = (word, cut)

    def mend(self) -> None:
        """Take new connections again."""
        self.is_down = False

    def close(self) -> None:
        """Take no more connections."""
        _hang_up(self._listener)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                program, _ = self._listener.accept()
                if self.is_down:
                    program.close()
                    continue
                server = socket.create_connection(self._to)
                muted = threading.Event()
                threading.Thread(target=self._ask, args=(program, server, muted), daemon=True).start()
                threading.Thread(target=self._answer, args=(program, server, muted), daemon=True).start()

    def _ask(self, program: socket.socket, server: socket.socket, muted: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while said := program.recv(65536):
                if self._armed is not None and self._armed[0] in said:
                    cut, self._armed, self.is_down = self._armed[1], None, True
                    muted.set()
                    if cut is Cut.WORD:
                        break
                server.sendall(said)
        _hang_up(server)  # which ends the other thread, and that the program's side

    def _answer(self, program: socket.socket, server: socket.socket, muted: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while said := server.recv(65536):
                if muted.is_set():
                    break
                program.sendall(said)
        _hang_up(program, server)
        if muted.is_set():
            self.was_cut.set()


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def free_port() -> int:
    """Return a port for a program that is told where to listen, and does so later.

    It is below those that the kernel gives away by itself (ip(7), ip_local_port_range): nobody else is given
    it meanwhile, neither to listen nor for a connection of his own.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", random.randrange(lowest // 2, lowest)))
            return int(tried.getsockname()[1])


@contextmanager
def nobodys_port() -> Iterator[int]:
    """Hold a port of this machine on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def wire_to(port: int) -> Iterator[Wire]:
    """Lay a wire to a port of this machine until the block ends."""
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()
