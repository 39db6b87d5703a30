"""Everything that is found wrong or unwise while one configuration is read, with its place."""

from collections.abc import Sequence

from jobs.errors import Fault
from jobs.secret import Redactor
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath, Mistake

_LONGEST = 600


class Faults:
    """Gathers faults and warnings; of one place only the first word counts."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.warnings: list[str] = []
        self._warned: set[str] = set()
        self._told: set[tuple[Document, KeyPath]] = set()
        self._touched: set[tuple[Document, KeyPath]] = set()
        self._clean = Redactor().clean

    def extend(self, faults: Sequence[Fault]) -> None:
        """Take over faults that are told in full, such as those of a file that is no YAML."""
        self.found.extend(faults)

    def take(self, document: Document, mistakes: Sequence[Mistake]) -> None:
        """Note what is wrong with the text of a document."""
        for m in mistakes:
            self._tell(document, m.path, (m.line, m.column), m.wrong, m.mend)

    def add(self, document: Document, path: KeyPath, wrong: str, mend: str, *, key: bool = False) -> None:
        """Note one fault at a path of a document, told at its value, or at its key."""
        if (document, path) not in self._told:
            self._tell(document, path, document.place(path, key=key), wrong, mend)

    def _tell(self, document: Document, path: KeyPath, place: tuple[int, int], wrong: str, mend: str) -> None:
        self._told.add((document, path))
        self._touched.update((document, path[:length]) for length in range(len(path) + 1))
        key, wrong, mend = (self._one_line(text) for text in (dotted(path), wrong, mend))
        self.found.append(Fault(document.file, *place, key, wrong, mend))

    def _one_line(self, text: str) -> str:
        shown = " ".join(self._clean(text[: 2 * _LONGEST]).split())
        return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"

    def under(self, document: Document, path: KeyPath) -> bool:
        """Say whether something at or below this path is already known to be wrong."""
        return (document, path) in self._touched

    def warn(self, document: Document, path: KeyPath, text: str) -> None:
        """Note something that works and is not wise; what many jobs inherit is told once."""
        warning = worded(document, path, text)
        if warning not in self._warned:
            self._warned.add(warning)
            self.warnings.append(warning)


def worded(document: Document, path: KeyPath, text: str) -> str:
    """Return a warning with its place before it."""
    line, column = document.place(path)
    return f"{document.file}:{line}:{column}: {dotted(path)}: {text}"


def dotted(path: KeyPath) -> str:
    """Return a path as people write it: `jobs[2].schedule`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
