"""Which files are promptd's own: no result takes their place, by whatever name it is led there."""

import os
from dataclasses import dataclass
from pathlib import Path

_BEGINNINGS = (".", "promptd.", "secret.key", "control.")
"""How the names in a state directory begin that promptd gives: database, key, sockets, drafts, backups."""


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """What nothing is delivered to: `files` and what lies beside them, and the own names of `state_dir`.

    Beside a database lie its journals and backups: their names begin with its name and `-` or `.`.
    """

    state_dir: Path
    files: tuple[Path, ...] = ()

    def have(self, path: Path) -> bool:
        """Say whether a path leads to one of them; links are followed, on both sides."""
        places = {_place(path), _real(path)}
        state_dir = _real(self.state_dir)
        named = (place.relative_to(state_dir) for place in places if state_dir in place.parents)
        if any(name.parts[0].startswith(_BEGINNINGS) for name in named):
            return True
        own = {each for file in self.files for each in (_place(file), _real(file))}
        return any(_is_beside(place, each) for place in places for each in own)


def _is_beside(path: Path, own: Path) -> bool:
    beside = (f"{own.name}-", f"{own.name}.")
    return path.parent == own.parent and (path.name == own.name or path.name.startswith(beside))


def _place(path: Path) -> Path:
    """Return where the entry of a directory is that a path names."""
    return _real(path.parent) / path.name


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
