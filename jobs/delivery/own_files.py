"""Which files are promptd's own, or make its jobs: no result takes their place, by whatever name."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BEGINNINGS = (".", "promptd.", "secret.key", "control.")
"""How the names in a state directory begin that promptd gives: database, key, sockets, drafts, backups."""


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """What nothing is delivered to: `files` and what lies beside them, and the own names of `state_dir`.

    Beside a database lie its journals and backups: their names begin with its name and `-` or `.`.
    Nor is it to what jobs are made of, or a model could write itself one, with commands: what lies in
    `jobs_dir`, or is led to by a link there, and `prompts`, the files of prompts and instructions. `secrets`
    may lie on any disk.
    """

    state_dir: Path
    files: tuple[Path, ...] = ()
    jobs_dir: Path | None = None
    prompts: tuple[Path, ...] = ()
    secrets: tuple[Path, ...] = ()

    def taken_by(self, path: Path, *, asks_secrets: bool = True) -> str | None:
        """Return why nothing may be delivered there, with what to do instead; None where something may.

        Links are followed, on both sides. Blocks: it reads directories; without `asks_secrets` none of those
        of secrets, whose disks may hang: these are told by the names that the configuration gives them.
        """
        places = _places(path)
        secrets = {each for file in self.secrets for each in (_places(file) if asks_secrets else (file,))}
        if self._are_promptds(places) or _any_beside({path, *places}, secrets):
            return "is a file of promptd's own, or named as one; name another"
        if self._are_jobs(places):
            return "lies among the job files in jobs_dir, or is one; name a directory outside of it"
        if any(_may_be(each, path) and places & _places(each) for each in self.prompts):
            return "is a prompt_file or system_file of a job; name another"
        return None

    def _are_promptds(self, places: set[Path]) -> bool:
        state_dir = _real(self.state_dir)
        named = (place.relative_to(state_dir) for place in places if state_dir in place.parents)
        if any(name.parts[0].startswith(_BEGINNINGS) for name in named):
            return True
        return _any_beside(places, {each for file in self.files for each in _places(file)})

    def _are_jobs(self, places: set[Path]) -> bool:
        if self.jobs_dir is None:
            return False
        own, state_dir = _places(self.jobs_dir), _real(self.state_dir)
        apart = state_dir if own & set(state_dir.parents) else None  # a state directory may lie below it
        for place in places:
            if apart not in place.parents and own & {place, *place.parents}:
                return True
        return any(place in places for place in _led_to(self.jobs_dir))


def _any_beside(places: set[Path], own: set[Path]) -> bool:
    return any(_is_beside(place, each) for place in places for each in own)


def _is_beside(path: Path, own: Path) -> bool:
    beside = (f"{own.name}-", f"{own.name}.")
    return path.parent == own.parent and (path.name == own.name or path.name.startswith(beside))


def _led_to(directory: Path) -> Iterator[Path]:
    """Yield where the links in a directory lead."""
    try:
        with os.scandir(directory) as entries:
            yield from (_real(Path(entry.path)) for entry in entries if entry.is_symlink())
    except OSError:
        return  # no job is read from there either


def _may_be(file: Path, path: Path) -> bool:
    """Say whether it is worth while to follow a file's links: there are as many as jobs."""
    return file.name == path.name or file.is_symlink()


def _places(path: Path) -> set[Path]:
    """Return where the entry of a directory is that a path names, and where that leads."""
    return {_real(path.parent) / path.name, _real(path)}


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
