"""Files of secrets, read in threads of their own: a disk that hangs holds up nobody for long."""

import stat
import threading
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

from jobs import clock
from jobs.errors import SecretDelayed, SecretUnreadable

LONGEST_SECRET = 64 * 1024
PATIENCE = 3.0  # seconds, for the first file whose disk gives no answer
IMPATIENCE = 0.5  # seconds, for each other file while one gives none
MOST_LATE = 16
KEPT = 10.0  # seconds, for what came late


@dataclass(frozen=True, slots=True)
class Held:
    """What a file held, and its mode (`st_mode`), when it was read."""

    content: bytes = field(repr=False)
    mode: int


@dataclass(slots=True)
class _Reading:
    """One read. `late`: the seconds after which it was left behind; `ended`: when its disk has answered."""

    held: "futures.Future[Held]" = field(default_factory=futures.Future)
    late: float | None = None
    ended: float | None = None


class SecretFiles:
    """Reads small files, each time anew, and waits for none of them for long. Any thread may ask.

    A read that is late is left behind: its thread, which nobody waits for at the end, stays until the disk
    answers, and until then its file is unreadable, without any wait. So all that hang together cost at most
    PATIENCE + MOST_LATE * IMPATIENCE seconds, and MOST_LATE threads, however often they are asked for.

    What came late is what the file is said to hold for `kept` seconds: one whose disk is always slow is
    readable to whoever asks again.
    """

    def __init__(self, patience: float = PATIENCE, *, kept: float = KEPT) -> None:
        self._patience = patience
        self._kept = kept
        self._guard = threading.Lock()
        self._readings: dict[Path, _Reading] = {}

    def read(self, path: Path) -> Held:
        """Return what a file holds; raises OSError, SecretUnreadable, and SecretDelayed that says how long.

        It is what it holds now, but after a late read: then it may be older, by `kept` seconds at most.
        """
        with self._guard:
            self._forget()
            late = sum(each.late is not None and each.ended is None for each in self._readings.values())
            reading = self._readings.get(path) or self._begun(path, late)
            wait = min(self._patience, IMPATIENCE) if late else self._patience
            wait = wait if reading.late is None else 0.0
        futures.wait((reading.held,), wait)
        with self._guard:
            if reading.ended is None:
                reading.late = reading.late or wait
                why = f"its disk gave no answer within {reading.late:g} s; look after that disk"
                raise SecretDelayed(why)
        return reading.held.result()

    def _forget(self) -> None:
        """Forget what came late, and too long ago. The guard is held."""
        oldest = clock.monotonic() - self._kept
        old = [
            path for path, each in self._readings.items() if each.ended is not None and each.ended <= oldest
        ]
        for path in old:
            del self._readings[path]

    def _begun(self, path: Path, late: int) -> _Reading:
        """Begin to read a file. The guard is held."""
        if late >= MOST_LATE:
            raise SecretDelayed(f"{late} other files get no answer from their disk; look after that disk")
        reading = _Reading()
        try:
            threading.Thread(target=self._work, args=(path, reading), name="secret file", daemon=True).start()
        except RuntimeError as exc:
            raise SecretDelayed("no thread can be started to read it") from exc
        self._readings[path] = reading
        return reading

    def _work(self, path: Path, reading: _Reading) -> None:
        try:
            found: Held | Exception = read_now(path)
        except Exception as exc:  # it is raised where the file was asked for
            found = exc
        with self._guard:
            reading.ended = clock.monotonic()
            if reading.late is None:
                del self._readings[path]
            if isinstance(found, Held):
                reading.held.set_result(found)
            else:
                reading.held.set_exception(found)


def read_now(path: Path) -> Held:
    """Return what a file holds, however long its disk takes; raises OSError and SecretUnreadable.

    What is no regular file is refused before it is opened: a pipe would never end.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        with path.open("rb") as stream:
            content = stream.read(LONGEST_SECRET + 1)
        if len(content) <= LONGEST_SECRET:
            return Held(content, mode)
    raise SecretUnreadable(f"not a file of at most {LONGEST_SECRET} bytes")
