"""What one part of the configuration says about another: that the other part is there."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from jobs.definition import OnOverflow
from scheduler.config.gather import Faults
from scheduler.config.schema import JobKeys
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath

Keys = tuple[Document, KeyPath, JobKeys]
_MOST_NAMES = 5


def check_references(
    written: Iterable[Keys], *, jobs: Collection[str], compresses: bool, faults: Faults
) -> None:
    """Note names of jobs that are not there, or there twice; warn where nobody is there to compress."""
    for document, path, row in written:
        if row.on_overflow is OnOverflow.COMPRESS and not compresses:
            without = "compresses nothing without `auxiliary: {compression: {}}`: such a run fails"
            faults.warn(document, (*path, "on_overflow"), without)
        for number, name in enumerate(row.context_from):
            place = (*path, "context_from", number)
            if name in row.context_from[:number]:
                faults.add(document, place, "is listed twice", "keep one of the two")
            elif name not in jobs:
                faults.add(document, place, "names a job that is not there", _nearest(name, jobs))


def _nearest(name: str, jobs: Collection[str]) -> str:
    near = get_close_matches(name, jobs, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    listed = sorted(jobs)[:_MOST_NAMES]
    return f"there are {', '.join(listed)}{', …' if len(jobs) > _MOST_NAMES else ''}"
