"""Files of deliveries beside each other, and beside promptd's own: which of them take whose place."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from jobs.delivery.file_name import example, fields_of
from jobs.delivery.target import FileTarget
from scheduler.config.gather import Faults
from scheduler.config.settings import Settings
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath

_MOST_NAMED = 3


def check_files(settings: Settings, document: Document, faults: Faults) -> None:
    """Note files that no result may replace; warn of those in which results or notices replace each other.

    No disk of a secret is asked: what links lead to one is known when it is written to.
    """
    own, files = settings.own_files(), dict(_files(settings))
    for name, target in files.items():
        taken = own.taken_by(target.base / example(target.template), asks_secrets=False)
        if taken is not None:
            wrong, _, mend = taken.partition("; ")
            faults.add(document, _path(name), wrong, f"{mend}, such as out/{{job}}/{{run_id}}.md")
    for name, jobs in _shared(settings, files).items():
        more = f" and {len(jobs) - _MOST_NAMED} more" if len(jobs) > _MOST_NAMED else ""
        who = f"{', '.join(jobs[:_MOST_NAMED])}{more}"
        faults.warn(
            document,
            _path(name),
            f"is one file for several jobs ({who}); add {{job}}, or they replace each other",
        )
    for name in settings.alerts.to:
        if name in files and "run_id" not in fields_of(files[name].template):
            faults.warn(
                document, _path(name), "keeps only the newest notice of alerts; add {run_id} to keep them all"
            )


def _files(settings: Settings) -> Iterator[tuple[str, FileTarget]]:
    return ((name, each) for name, each in settings.delivery.items() if isinstance(each, FileTarget))


def _path(name: str) -> KeyPath:
    return ("delivery", name, "file")


def _shared(settings: Settings, files: Mapping[str, FileTarget]) -> Mapping[str, list[str]]:
    """Return the targets whose file several jobs write, with those jobs."""
    of_all = {name for name, each in files.items() if not fields_of(each.template) & {"job", "run_id"}}
    writers: defaultdict[str, list[str]] = defaultdict(list)
    for job in settings.jobs.values():
        for name in of_all & {each.to for each in job.job.deliver}:
            writers[name].append(job.name)
    return {name: writers[name] for name in files if len(writers[name]) > 1}
