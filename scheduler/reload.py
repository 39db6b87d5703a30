"""Another configuration for a running daemon: what of it applies at once, what waits for a restart."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jobs.errors import Fault
from scheduler.config import loader
from scheduler.config.settings import Settings

FIXED: Mapping[str, str] = MappingProxyType(
    {
        "database": "database",
        "state_dir": "state_dir",
        "secret_key": "secret_keys",
        "server.listen": "listen",
        "logging.format": "log_format",
    }
)
"""Keys that only a restart changes, with the settings that they make."""

_BESIDE_JOBS: Mapping[str, Callable[[Settings], object]] = MappingProxyType(
    {
        "timezone": lambda settings: settings.timezone,
        "model": lambda settings: settings.chain,
        "auxiliary": lambda settings: settings.auxiliary,
        "providers": lambda settings: tuple(settings.registry),
        "defaults.timeout": lambda settings: settings.job_timeout,
        "limits": lambda settings: settings.limits,
        "logging.level": lambda settings: settings.log_level,
        "delivery": lambda settings: settings.delivery,
        "alerts": lambda settings: settings.alerts,
    }
)
"""What a reload applies beside jobs; other defaults are told by the jobs that have them."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did: jobs by name, other `settings` by key, keys that wait for a restart.

    With `faults` nothing was changed.
    """

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    waits_for_restart: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the new configuration is in force."""
        return not self.faults

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "ok": self.ok,
            "changed": list(self.changed),
            "added": list(self.added),
            "removed": list(self.removed),
            "settings": list(self.settings),
            "waits_for_restart": list(self.waits_for_restart),
            "faults": [str(fault) for fault in self.faults],
        }

    def __str__(self) -> str:
        counts = ((self.added, "added"), (self.changed, "changed"), (self.removed, "removed"))
        jobs = ", ".join(f"{len(names)} {word}" for names, word in counts if names) or "no job changed"
        told = f"{jobs}; {', '.join(self.settings)} changed" if self.settings else jobs
        waits = f"; a restart is wanted for {', '.join(self.waits_for_restart)}"
        return f"{told}{waits if self.waits_for_restart else ''}"


async def read_again(source: Path, environ: Mapping[str, str], *, now: datetime) -> Settings:
    """Read the configuration off the loop; raises ConfigError with everything that is wrong."""
    return await asyncio.to_thread(loader.load, source, environ=environ, now=now)


def applicable(old: Settings, new: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Return the new settings with those of the old that only a restart changes, and the keys of these.

    What the old ones kept from commands, the new ones keep as well.
    """
    waits = tuple(key for key, name in FIXED.items() if getattr(old, name) != getattr(new, name))
    fixed = {name: getattr(old, name) for name in FIXED.values()}
    return replace(new.in_state_dir(old.state_dir).after(old), **fixed), waits


def difference(old: Settings, new: Settings, waits: tuple[str, ...]) -> Reloaded:
    """Return which jobs came, went, and are another now, and which settings beside them are."""
    before, after = old.jobs, new.jobs
    return Reloaded(
        changed=tuple(name for name in after if name in before and before[name] != after[name]),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        settings=tuple(key for key, of in _BESIDE_JOBS.items() if of(old) != of(new)),
        waits_for_restart=waits,
    )
