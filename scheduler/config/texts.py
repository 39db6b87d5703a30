"""A job's prompt and instructions: written out, or in files of their own, which are looked at once."""

from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import TemplateError
from jobs.prompt_file import read_prompt_file
from scheduler.config import paths
from scheduler.config.forms import template_fault
from scheduler.config.gather import Faults
from scheduler.config.job_files import WrittenJob
from scheduler.config.places import Places
from scheduler.config.schema import JobKeys
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath


def moved(text: str) -> str:
    """Return a text in memory of its own.

    The one that was read lies among the nodes of its file, and would keep their memory from being given
    back: 25 MB with 10,000 jobs.
    """
    return (text + " ")[:-1]


@dataclass(frozen=True, slots=True)
class Texts:
    """What a job's model is told; where there is a file, the text beside it is empty."""

    prompt: str
    prompt_file: Path | None
    system: str | None
    system_file: Path | None


@dataclass(slots=True)
class TextReader:
    """Settles texts. A key of a job itself comes before both keys of `defaults`, which the main file has."""

    places: Places
    faults: Faults
    main: Document
    defaults: JobKeys
    _looked_at: dict[Path, str] = field(default_factory=dict)

    def check_defaults(self) -> None:
        """Look at the files that `defaults` names, whether or not a job uses them."""
        for key in ("prompt_file", "system_file"):
            self._file(self.main, ("defaults",), self.defaults, key)
        self._not_both(self.main, ("defaults",), self.defaults, "system")

    def of(self, written: WrittenJob) -> Texts | None:
        """Return a job's texts; None where it has none that can be used."""
        row, document, path = written.row, written.document, written.path
        self._not_both(document, path, row, "prompt")
        self._not_both(document, path, row, "system")
        prompt_file = system_file = None
        if row.prompt is None:
            prompt_file = self._picked_file(written, "prompt_file")
            if prompt_file is None:
                return None
        system = row.system
        if system is None and row.system_file is None:
            system = self.defaults.system
        if system is None:
            system_file = self._picked_file(written, "system_file")
        own = moved(system) if system is not None else None
        return Texts(moved(row.prompt or ""), prompt_file, own, system_file)

    def _picked_file(self, written: WrittenJob, key: str) -> Path | None:
        if getattr(written.row, key) is not None:
            return self._file(written.document, written.path, written.row, key)
        return self._file(self.main, ("defaults",), self.defaults, key)

    def _not_both(self, document: Document, path: KeyPath, row: JobKeys, key: str) -> None:
        if {key, f"{key}_file"} <= row.model_fields_set:
            wrong = f"says again what {key} says"
            self.faults.add(document, (*path, f"{key}_file"), wrong, "keep one of the two", key=True)

    def _file(self, document: Document, path: KeyPath, row: JobKeys, key: str) -> Path | None:
        """Return the absolute path of a file, which is relative to the file that names it."""
        name = getattr(row, key)
        if name is None:
            return None
        place = (*path, key)
        try:
            file = paths.absolute(name, document.file.absolute().parent, self.places.environ)
        except ValueError:
            self.faults.add(document, place, "is not a path", "name a text file")
            return None
        if self.places.files.alone:
            return file
        wrong, _, mend = self._fault(file, blank=key == "prompt_file").partition("; ")
        if wrong and self._is_fault(document):
            self.faults.add(document, place, wrong, mend)
        elif wrong:
            self.faults.warn(document, place, f"{wrong}; {mend}" if mend else wrong)
        return file

    def _is_fault(self, document: Document) -> bool:
        """Say whether a file that cannot be used is one: others can mend it before the next run reads it."""
        return self.places.files.strict or document.file in self.places.files.drafts

    def _fault(self, file: Path, *, blank: bool) -> str:
        if file not in self._looked_at:
            self._looked_at[file] = _fault_of(file)
        fault = self._looked_at[file]
        return "" if fault == _BLANK and not blank else fault


_BLANK = "names a blank file; write what the model is asked in it"


def _fault_of(file: Path) -> str:
    """Return what is wrong with a prompt file, or nothing."""
    try:
        text = read_prompt_file(file)
    except TemplateError as exc:
        return f"names a file that cannot be used: {exc}"
    if not text.strip():
        return _BLANK
    wrong = template_fault(text)
    return f"names {file}, which {wrong}" if wrong else ""
