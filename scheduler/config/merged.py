"""A job's keys over those of `defaults` over the built-in ones."""

from dataclasses import dataclass
from typing import Any

from scheduler.config.job_files import WrittenJob
from scheduler.config.schema import JobKeys
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath


@dataclass(frozen=True, slots=True)
class Merged:
    """Looks keys up. `main` is the file that has `defaults`."""

    main: Document
    defaults: JobKeys

    def pick(self, row: JobKeys, key: str) -> Any:
        """Return the job's own value, else that of `defaults`, else the built-in one."""
        return getattr(row if key in row.model_fields_set else self.defaults, key)

    def place(self, written: WrittenJob, key: str) -> tuple[Document, KeyPath]:
        """Return where a job's value of a key is written."""
        if key in written.row.model_fields_set or key not in self.defaults.model_fields_set:
            return written.document, (*written.path, key)
        return self.main, ("defaults", key)
