"""Jobs as they are written: in the main file, and in files of their own under `jobs_dir`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import ConfigError
from scheduler.config.checked import checked_job
from scheduler.config.faults import NOT_LIST, note_empty_keys
from scheduler.config.gather import Faults
from scheduler.config.places import DEFAULT_JOBS_DIR, Places
from scheduler.config.schema import ConfigFile, PartialJob
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath


@dataclass(frozen=True, slots=True)
class WrittenJob:
    """One job, or what is sound of it, and where it stands."""

    document: Document
    path: KeyPath
    row: PartialJob


def written_jobs(main: Document, top: ConfigFile, places: Places, faults: Faults) -> list[WrittenJob]:
    """Return the jobs of all files, those of the main file first, then file by file in order of names."""
    inline, has_prompt = main.data.get("jobs"), top.defaults.prompt_file is not None
    found = [] if inline is None else list(_jobs_of(main, ("jobs",), inline, faults, has_prompt))
    note_empty_keys(faults, main)
    for file in _job_files(main, top.jobs_dir, places, faults):
        try:
            document, mistakes = places.files.read(file)
        except ConfigError as exc:
            faults.extend(exc.faults)
            continue
        faults.take(document, mistakes)
        found.extend(_jobs_of(document, (), document.data, faults, has_prompt))
        note_empty_keys(faults, document)
    return found


def _jobs_of(
    document: Document, path: KeyPath, data: Any, faults: Faults, has_prompt: bool
) -> Iterator[WrittenJob]:
    if isinstance(data, list):
        items: list[tuple[KeyPath, Any]] = [((*path, number), item) for number, item in enumerate(data)]
    elif path:
        faults.add(document, path, *NOT_LIST)
        return
    else:
        items = [((), data)]
    for place, item in items:
        row = checked_job(document, place, item, faults, has_prompt=has_prompt)
        if row is not None:
            yield WrittenJob(document, place, row)


def jobs_dir(named: str | None, places: Places) -> Path:
    """Return the directory of job files that the key `jobs_dir` names."""
    return places.absolute(named or DEFAULT_JOBS_DIR)


def _job_files(main: Document, named: str | None, places: Places, faults: Faults) -> list[Path]:
    """Return the job files; a directory that was named must be there, the default one need not."""
    try:
        files = places.files.of(jobs_dir(named, places))
    except FileNotFoundError:
        if named is not None:
            faults.add(
                main, ("jobs_dir",), "names a directory that does not exist", "make it, or remove the key"
            )
        return []
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "not a path"
        faults.add(main, ("jobs_dir",), f"cannot be read: {why}", "name a directory that can be read")
        return []
    for file in files:
        if file.suffix == ".yml":
            faults.warnings.append(f"{file}: is not read; job files end in .yaml")
    return [file for file in files if file.suffix == ".yaml"]
