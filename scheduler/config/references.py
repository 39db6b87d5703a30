"""What one part of the configuration says about another: that the other part is there, and no circle."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from jobs.definition import OnOverflow
from scheduler.config.gather import Faults
from scheduler.config.schema import JobKeys, PartialJob
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath

Keys = tuple[Document, KeyPath, JobKeys]
_LISTS_OF_JOBS = ("context_from", "after")
_MOST_NAMES = 5


def check_references(
    written: Iterable[Keys],
    *,
    jobs: Collection[str],
    targets: Collection[str],
    compresses: bool,
    faults: Faults,
) -> None:
    """Note names of jobs, and of delivery `targets`, that are not there, or there twice.

    Warn where nobody is there to compress.

    The first of `written` is `defaults`. Jobs that come after themselves, through whichever others, are
    told once for each circle.
    """
    written = tuple(written)
    for document, path, row in written:
        if row.on_overflow is OnOverflow.COMPRESS and not compresses:
            without = "compresses nothing without `auxiliary: {compression: {}}`: such a run fails"
            faults.warn(document, (*path, "on_overflow"), without)
        for key in _LISTS_OF_JOBS:
            _check_names(document, (*path, key), getattr(row, key), jobs, faults)
        check_targets(document, (*path, "deliver"), [each.to for each in row.deliver], targets, faults)
    _check_circles(written[0], written[1:], faults)


def _check_names(
    document: Document, path: KeyPath, names: tuple[str, ...], jobs: Collection[str], faults: Faults
) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            faults.add(document, (*path, number), "is listed twice", "keep one of the two")
        elif name not in jobs:
            faults.add(document, (*path, number), "names a job that is not there", _nearest(name, jobs))


def check_targets(
    document: Document, path: KeyPath, names: Sequence[str], targets: Collection[str], faults: Faults
) -> None:
    """Note names of delivery targets that are not there, or there twice, in the list at this path."""
    for number, name in enumerate(names):
        if name in names[:number]:
            wrong, mend = "is listed twice", "keep one of the two; `on: always` is every end"
        elif name not in targets:
            wrong = "names a delivery target that is not there"
            mend = _nearest(name, targets) if targets else "there is none; add one under `delivery:`"
        else:
            continue
        faults.add(document, document.held((*path, number, "to")), wrong, mend)


def _nearest(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    listed = sorted(known)[:_MOST_NAMES]
    return f"there are {', '.join(listed)}{', …' if len(known) > _MOST_NAMES else ''}"


@dataclass(frozen=True, slots=True)
class _After:
    """The jobs that one job comes after, and where that is written."""

    document: Document
    path: KeyPath
    names: tuple[str, ...]


def _check_circles(defaults: Keys, written: Iterable[Keys], faults: Faults) -> None:
    lists = {}
    for document, path, row in written:
        if isinstance(row, PartialJob) and row.name is not None:
            own = "after" in row.model_fields_set
            said = (document, path, row) if own else defaults
            if said[2].after:
                lists[row.name] = _After(said[0], (*said[1], "after"), said[2].after)
    walk = _Walk(lists, faults)
    for name in lists:
        walk.from_(name)


@dataclass(slots=True)
class _Walk:
    """A walk along `after`, each job once; `_trail` is the way to where it stands."""

    lists: Mapping[str, _After]
    faults: Faults
    _seen: set[str] = field(default_factory=set)
    _trail: dict[str, int] = field(default_factory=dict)

    def from_(self, first: str) -> None:
        """Follow every way from one job; not by recursion, since a way may be as long as there are jobs."""
        if first in self._seen:
            return
        self._step_to(first)
        while self._trail:
            here, number = next(reversed(self._trail.items()))
            after = self.lists.get(here)
            if after is None or number >= len(after.names):
                del self._trail[here]
                continue
            self._trail[here] = number + 1
            following = after.names[number]
            if following in self._trail:
                self._tell(after, number, following)
            elif following not in self._seen:
                self._step_to(following)

    def _step_to(self, name: str) -> None:
        self._seen.add(name)
        self._trail[name] = 0

    def _tell(self, after: _After, number: int, closing: str) -> None:
        trail = list(self._trail)
        circle = [*trail[trail.index(closing) :], closing]
        shown = circle if len(circle) <= _MOST_NAMES else [*circle[: _MOST_NAMES - 1], "…", closing]
        wrong = f"closes a circle, {' after '.join(shown)}"
        self.faults.add(after.document, (*after.path, number), wrong, "take one of these jobs out of it")
