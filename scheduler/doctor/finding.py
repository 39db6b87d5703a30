"""What one look has found: how bad it is, what was seen, and what mends it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. `unknown`: it does not apply here, or could not be seen."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; only warnings and faults have a `mend`."""

    name: str
    level: Level
    seen: str
    mend: str = ""

    @classmethod
    def ok(cls, name: str, seen: str) -> "Finding":
        """Something is as it should be."""
        return cls(name, Level.OK, seen)

    @classmethod
    def unknown(cls, name: str, seen: str) -> "Finding":
        """Something does not apply, or cannot be seen from here."""
        return cls(name, Level.UNKNOWN, seen)

    @classmethod
    def warning(cls, name: str, seen: str, mend: str) -> "Finding":
        """Something works, and may not for long, or not as well as it could."""
        return cls(name, Level.WARNING, seen, mend)

    @classmethod
    def fault(cls, name: str, seen: str, mend: str) -> "Finding":
        """Something does not work."""
        return cls(name, Level.FAULT, seen, mend)
