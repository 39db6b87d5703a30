"""Who measures and who is measured beside it: which python runs whom."""

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Peers:
    """The environment of what is not the product's: None where it was not installed."""

    python: str | None = None

    @classmethod
    def found(cls, directory: Path) -> "Peers":
        """Return the peers that lie in a virtual environment."""
        python = directory / "bin" / "python"
        return cls(str(python.absolute()) if python.exists() else None)

    @property
    def spy(self) -> str | None:
        """The profiler that looks at a running process from outside."""
        return str(Path(self.python).with_name("py-spy")) if self.python else None

    def theirs(self, module: str, *words: str) -> list[str]:
        """Return the command of a measured program in the peers' environment."""
        assert self.python is not None
        return [self.python, "-m", f"bench.measured.{module}", *words]


def ours(module: str, *words: str) -> list[str]:
    """Return the command of a measured program in the product's environment."""
    return [sys.executable, "-m", f"bench.measured.{module}", *words]
