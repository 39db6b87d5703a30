"""The settled configuration: frozen values, names canonical, paths absolute, nothing left to guess."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from zoneinfo import ZoneInfo

from jobs.alert import AlertPolicy
from jobs.credential import SecretReference
from jobs.definition import Job
from jobs.delivery.own_files import OwnFiles
from jobs.delivery.target import DeliveryTarget, FileTarget, references_of
from jobs.names import ProviderName
from jobs.providers.registry import Registry
from jobs.target import Target
from scheduler.timetable import Timetable
from scheduler.triggers import Schedule

_SQLITE = "sqlite:///"


class LogFormat(StrEnum):
    """How log lines are written; `auto` chooses by where they go."""

    AUTO = "auto"
    JOURNAL = "journal"
    CONSOLE = "console"
    JSON = "json"


class CatchUp(StrEnum):
    """What becomes of instants that fell due while no daemon was up."""

    LATEST = "latest"
    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job and its when. `schedule` is None for a job that is run by hand or after others.

    `timetable` is what the schedule is made of, there exactly where that is. `jitter` delays each run by
    a part of it.
    """

    job: Job
    schedule: Schedule | None
    timezone: ZoneInfo
    enabled: bool = True
    misfire_grace_time: timedelta | None = None
    catch_up: CatchUp = CatchUp.LATEST
    timetable: Timetable | None = None
    jitter: timedelta | None = None
    max_runs: int | None = None

    @property
    def name(self) -> str:
        """The job's name, under which its history and state are kept."""
        return self.job.name

    def runs_left(self, started: int) -> int | None:
        """Return how many runs may still be started after so many; None where nothing bounds them."""
        return None if self.max_runs is None else max(0, self.max_runs - started)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the daemon. Of each job's ended runs the newest `keep_runs` are kept, for `keep_days`."""

    max_concurrent_runs: int = 32
    drain_timeout: timedelta = timedelta(seconds=30)
    keep_runs: int = 1000
    keep_days: int | None = None


@dataclass(frozen=True, slots=True)
class Listen:
    """Where HTTP is served; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 9464


@dataclass(frozen=True, slots=True)
class AuxiliaryTask:
    """A helper call with targets of its own; after them comes a job's chain, if `fallback_to_main`."""

    chain: tuple[Target, ...]
    fallback_to_main: bool = True
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that one configuration says; `files` is what its files held, packed (`in_force`).

    `jobs_dir` is where job files are read from, whether or not it is there; None where nobody has said it.
    `formerly` are variables that this process has taken for secrets, whatever the configuration says by now.
    """

    source: Path
    timezone: ZoneInfo
    database: str
    state_dir: Path
    secret_keys: tuple[SecretReference, ...]
    registry: Registry
    chain: tuple[Target, ...]
    jobs: Mapping[str, ScheduledJob]
    auxiliary: Mapping[str, AuxiliaryTask] = field(default_factory=lambda: MappingProxyType({}))
    limits: Limits = Limits()
    listen: Listen | None = Listen()
    log_level: str = "info"
    log_format: LogFormat = LogFormat.AUTO
    job_timeout: timedelta = timedelta(minutes=10)
    warnings: tuple[str, ...] = ()
    follows_machine_zone: bool = False
    delivery: Mapping[str, DeliveryTarget] = field(default_factory=lambda: MappingProxyType({}))
    alerts: AlertPolicy = AlertPolicy()
    files: bytes = field(default=b"", repr=False, compare=False)
    jobs_dir: Path | None = None
    formerly: tuple[SecretReference, ...] = field(default=(), compare=False)

    def asked_providers(self) -> list[ProviderName]:
        """Return the providers whom jobs ask, helpers of theirs included, in order of names."""
        return sorted({target.provider for job in self.jobs.values() for target in job.job.targets})

    def delivery_references(self) -> tuple[SecretReference, ...]:
        """Return every secret that deliveries and heartbeats refer to."""
        named = [each for target in self.delivery.values() for each in references_of(target)]
        beats = [job.job.heartbeat for job in self.jobs.values()]
        return tuple(dict.fromkeys([*named, *(each for each in beats if each is not None)]))

    def withheld(self) -> tuple[SecretReference, ...]:
        """Return every secret beside the providers' that no command of a job is to find."""
        return (*self.secret_keys, *self.delivery_references(), *self.formerly)

    def after(self, former: "Settings") -> "Settings":
        """Return this as what follows a former configuration: no variable of that reaches a command again."""
        named = dict.fromkeys((*former._credentials(), *former.withheld()))
        return replace(self, formerly=tuple(each for each in named if each.scheme == "env"))

    def _credentials(self) -> tuple[SecretReference, ...]:
        found = (credential.reference for provider in self.registry for credential in provider.credentials)
        return tuple(each for each in found if each is not None)

    def own_files(self) -> OwnFiles:
        """Return what no delivery takes the place of: configuration, prompts, database, secrets' files."""
        named = (*self._credentials(), *self.withheld())
        kept = {Path(each.name) for each in named if each.scheme == "file"}
        file = self.database.removeprefix(_SQLITE)
        database = () if file == self.database else (Path(file),)
        files, prompts = (self.source, *database), self._prompt_files()
        return OwnFiles(self.state_dir, files, self.jobs_dir, prompts, tuple(sorted(kept)))

    def _prompt_files(self) -> tuple[Path, ...]:
        jobs = (job.job for job in self.jobs.values())
        named = (file for job in jobs for file in (job.prompt_file, job.system_file))
        return tuple(dict.fromkeys(file for file in named if file is not None))

    def in_state_dir(self, state_dir: Path) -> "Settings":
        """Return this with another state directory: the files of deliveries lie there too."""
        delivery = {
            name: replace(target, base=state_dir) if isinstance(target, FileTarget) else target
            for name, target in self.delivery.items()
        }
        return replace(self, state_dir=state_dir, delivery=MappingProxyType(delivery))

    def targets(self) -> tuple[Target, ...]:
        """Return every target that a chain names: the main one, the jobs' and the auxiliary tasks'."""
        chains = [self.chain, *(job.job.chain for job in self.jobs.values())]
        chains.extend(task.chain for task in self.auxiliary.values())
        return tuple(target for chain in chains for target in chain)
