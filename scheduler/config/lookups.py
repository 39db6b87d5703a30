"""Parts of a template's names that cannot be there, found before a run fails of them."""

from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from jobs.definition import Job
from jobs.errors import TemplateError
from jobs.prompt import looked_up
from jobs.prompt_file import read_prompt_file
from jobs.template_lookups import Lookup
from scheduler.config.gather import Faults
from scheduler.config.job_files import WrittenJob
from scheduler.config.merged import Merged
from scheduler.config.sources import Files

_MOMENTS = ("scheduled_for", "now")
_MOST_NAMED = 5


@dataclass(slots=True)
class LookupCheck:
    """Notes what the templates of a job ask for in vain. A file's text is looked at once."""

    merged: Merged
    files: Files
    faults: Faults
    _of_files: dict[Path, tuple[Lookup, ...]] = field(default_factory=dict)

    def look(self, written: WrittenJob, job: Job) -> None:
        """Look at one job; a file that another process may mend in time is told in a warning."""
        if self.files.alone:
            return
        for key, text in (("prompt", job.prompt), ("system", job.system)):
            self._tell(written, key, _wrong(looked_up(text or ""), job), mends_later=False)
        for key, file in (("prompt_file", job.prompt_file), ("system_file", job.system_file)):
            if file is not None:
                wrong = _wrong(self._of_file(file), job)
                self._tell(written, key, f"names {file}, which {wrong}" if wrong else "", mends_later=True)

    def _tell(self, written: WrittenJob, key: str, said: str, *, mends_later: bool) -> None:
        document, path = self.merged.place(written, key)
        wrong, _, mend = said.partition("; ")
        drafted = self.files.strict or document.file in self.files.drafts
        if wrong and mends_later and not drafted:
            self.faults.warn(document, path, said)
        elif wrong:
            self.faults.add(document, path, wrong, mend)

    def _of_file(self, file: Path) -> tuple[Lookup, ...]:
        if file not in self._of_files:
            try:
                self._of_files[file] = looked_up(read_prompt_file(file))
            except TemplateError:  # told elsewhere
                self._of_files[file] = ()
        return self._of_files[file]


def _wrong(asked: tuple[Lookup, ...], job: Job) -> str:
    """Return what is wrong with the first that cannot be there, and the mend; nothing where all can."""
    for each in asked:
        if each.root == "context":
            if each.name not in job.context_from and not hasattr(dict, each.name):
                return f"asks in line {each.line} for context[{each.name!r}], {_of_context(each.name, job)}"
        elif not hasattr(datetime if each.root in _MOMENTS else str, each.name):
            kind = "a moment" if each.root in _MOMENTS else "a text"
            wrong = f"asks in line {each.line} for {each.root}.{each.name}, and {each.root} is {kind}"
            return f"{wrong} without that; write {{{{ {each.root} }}}}, or a value of your own in vars"
    return ""


def _of_context(name: str, job: Job) -> str:
    if not job.context_from:
        return f"and nothing is in context_from; add `context_from: [{name}]`, or take it out"
    near = get_close_matches(name, job.context_from, n=1)
    there = ", ".join(job.context_from[:_MOST_NAMED])
    more = ", …" if len(job.context_from) > _MOST_NAMED else ""
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"which context_from does not name; {meant}there are {there}{more}"
