"""Files of secrets, read in threads of their own: a disk that hangs holds up nobody for long."""

import stat
import threading
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import SecretUnreadable

LONGEST_SECRET = 64 * 1024
PATIENCE = 3.0  # seconds, for the first file whose disk gives no answer
IMPATIENCE = 0.5  # seconds, for each other file while one gives none
MOST_LATE = 16


@dataclass(slots=True)
class _Reading:
    """One read under way; `late`: the seconds after which it was left behind."""

    content: "futures.Future[bytes]" = field(default_factory=futures.Future)
    late: float | None = None


class SecretFiles:
    """Reads small files, each time anew, and waits for none of them for long. Any thread may ask.

    A read that is late is left behind: its thread, which nobody waits for at the end, stays until the disk
    answers, and until then its file is unreadable, without any wait. So all that hang together cost at most
    PATIENCE + MOST_LATE * IMPATIENCE seconds, and MOST_LATE threads, however often they are asked for.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._guard = threading.Lock()
        self._under_way: dict[Path, _Reading] = {}

    def read(self, path: Path) -> bytes:
        """Return what a file holds now; raises OSError, and SecretUnreadable that says how long it took."""
        with self._guard:
            late = sum(each.late is not None for each in self._under_way.values())
            reading = self._under_way.get(path) or self._begun(path, late)
        wait = min(self._patience, IMPATIENCE) if late else self._patience
        done, _ = futures.wait((reading.content,), wait if reading.late is None else 0)
        if done:
            return reading.content.result()
        reading.late = reading.late or wait
        raise SecretUnreadable(f"its disk gave no answer within {reading.late:g} s; look after that disk")

    def _begun(self, path: Path, late: int) -> _Reading:
        """Begin to read a file. The guard is held."""
        if late >= MOST_LATE:
            raise SecretUnreadable(f"{late} other files get no answer from their disk; look after that disk")
        reading = _Reading()
        try:
            threading.Thread(target=self._work, args=(path, reading), name="secret file", daemon=True).start()
        except RuntimeError as exc:
            raise SecretUnreadable("no thread can be started to read it") from exc
        self._under_way[path] = reading
        return reading

    def _work(self, path: Path, reading: _Reading) -> None:
        content, error = b"", None
        try:
            content = read_now(path)
        except Exception as exc:  # it is raised where the file was asked for
            error = exc
        with self._guard:
            del self._under_way[path]
        if error is not None:
            reading.content.set_exception(error)
        else:
            reading.content.set_result(content)


def read_now(path: Path) -> bytes:
    """Return a file's bytes, however long its disk takes; raises OSError and SecretUnreadable.

    What is no regular file is refused before it is opened: a pipe would never end.
    """
    if stat.S_ISREG(path.stat().st_mode):
        with path.open("rb") as stream:
            content = stream.read(LONGEST_SECRET + 1)
        if len(content) <= LONGEST_SECRET:
            return content
    raise SecretUnreadable(f"not a file of at most {LONGEST_SECRET} bytes")
