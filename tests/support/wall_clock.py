"""A wall clock of a daemon's own: it is set like the machine's, and the machine's stays as it is."""

import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
_NANOSECONDS = struct.Struct("=q")
_MICROSECOND = timedelta(microseconds=1)


class NotThere(Exception):
    """No clock of its own can be given to a process here, and why."""


def library_in(directory: Path) -> Path:
    """Compile what stands between a process and its clock; raises NotThere."""
    if sys.platform != "linux":
        raise NotThere("a process gets a clock of its own by LD_PRELOAD, as Linux has it")
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotThere("no C compiler to make a process's own clock with: install Debian's gcc")
    made = directory / "wall_clock.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", made, SOURCE], check=True, timeout=60)
    return made


@dataclass(frozen=True)
class WallClock:
    """The clock of the processes that get `environ`; it begins as the machine's."""

    library: Path
    file: Path

    def __post_init__(self) -> None:
        self.set_off_by(timedelta())

    @property
    def environ(self) -> dict[str, str]:
        """What makes a process ask this clock."""
        return {"LD_PRELOAD": str(self.library), "WALL_CLOCK": str(self.file)}

    def now(self) -> datetime:
        """Return what the processes are told."""
        return datetime.now(UTC) + self.off_by()

    def off_by(self) -> timedelta:
        """Return how far this clock is before the machine's."""
        (nanoseconds,) = _NANOSECONDS.unpack(self.file.read_bytes())
        return timedelta(microseconds=nanoseconds // 1000)

    def step(self, by: timedelta) -> None:
        """Set the clock forward, or back."""
        self.set_off_by(self.off_by() + by)

    def set_off_by(self, offset: timedelta) -> None:
        """Set the clock to the machine's and so much more, at one stroke."""
        mode = os.O_WRONLY | os.O_CREAT  # the file stays the one that processes have mapped
        opened = os.open(self.file, mode, 0o600)
        try:
            os.pwrite(opened, _NANOSECONDS.pack(offset // _MICROSECOND * 1000), 0)
        finally:
            os.close(opened)
