"""Configuration read as a whole: files in, `Settings` out, or one ConfigError with every fault."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from zoneinfo import ZoneInfo

from jobs.credential import SecretReference
from jobs.definition import DEFAULT_TIMEOUT
from jobs.errors import ConfigError
from scheduler.config.addresses import Addresses
from scheduler.config.build import Builder, Shared, Targets
from scheduler.config.chains import Chains, Written, written_for, written_in
from scheduler.config.checked import checked_file
from scheduler.config.delivery import Delivery
from scheduler.config.delivery_files import check_files
from scheduler.config.faults import NOT_MAPPING
from scheduler.config.gather import Faults
from scheduler.config.in_force import packed, taken_over
from scheduler.config.job_files import WrittenJob, jobs_dir, written_jobs
from scheduler.config.places import DEFAULT_DATABASE, Places, database_url, listen_address, machine_zone
from scheduler.config.schema import AuxiliaryRow, ConfigFile
from scheduler.config.settings import AuxiliaryTask, Limits, LogFormat, Settings
from scheduler.config.sources import NO_DRAFTS, Document, Drafts, Files
from scheduler.config.yaml_tree import KeyPath


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and the files and rows that they were made of; `secret_files` with what names each first."""

    settings: Settings
    document: Document
    file: ConfigFile
    written: tuple[WrittenJob, ...]
    secret_files: Mapping[Path, tuple[Document, KeyPath]]


def load(path: Path, *, environ: Mapping[str, str], now: datetime, strict: bool = False) -> Settings:
    """Return the settled configuration; raises ConfigError that lists everything that is wrong."""
    return load_with_origins(path, environ=environ, now=now, strict=strict).settings


def load_with_origins(
    path: Path,
    *,
    environ: Mapping[str, str],
    now: datetime,
    drafts: Drafts = NO_DRAFTS,
    strict: bool = False,
) -> Loaded:
    """Return the settled configuration with what it was made of; raises ConfigError as `load` does.

    With `drafts` it is the configuration as it would be if these files held these texts, or (None) were gone.
    A prompt file that cannot be used is told in the warnings; when `strict`, or in a draft, it is a fault.
    """
    files = Files(drafts, strict=strict)
    with _collector_paused():
        return _loaded(path, Places(path.absolute().parent, environ, files), now)


def load_in_force(path: Path, handed: bytes, *, environ: Mapping[str, str], now: datetime) -> Loaded:
    """Return the configuration that a daemon has handed over, whatever lies on the disk by now."""
    given = taken_over(handed)
    places = Places(path.absolute().parent, environ, Files(given.texts, alone=True))
    with _collector_paused():
        loaded = _loaded(path, places, now)
    settings = replace(
        loaded.settings.in_state_dir(given.state_dir),
        database=given.database,
        secret_keys=given.secret_keys,
        formerly=given.formerly,
    )
    return replace(loaded, settings=settings)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the cycle collector: it would walk every node again and again, for half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _loaded(path: Path, places: Places, now: datetime) -> Loaded:
    faults = Faults()
    document, mistakes = places.files.read(path)
    faults.take(document, mistakes)
    if not isinstance(document.data, dict):
        faults.add(document, (), *NOT_MAPPING)
        raise ConfigError(faults.found)
    loaded = _Reading(document, places, faults).loaded(now)
    if faults.found:
        raise ConfigError(faults.found)
    settings = replace(loaded.settings, files=packed(places.files.texts))
    return replace(loaded, settings=settings)


@dataclass(slots=True)
class _Reading:
    """One configuration while it is read; every step goes on with what is sound."""

    document: Document
    places: Places
    faults: Faults

    def loaded(self, now: datetime) -> Loaded:
        file = checked_file(self.document, self.faults)
        written = tuple(written_jobs(self.document, file, self.places, self.faults))
        addresses = Addresses(self.places, self.faults)
        chains = Chains(self.places, self.faults, addresses)
        chains.add_providers(self.document, file.providers)
        chains.add_custom(self.document, _written_at_top(file))
        for job in written:
            chains.add_custom(job.document, written_in(job.row, job.path))
        settings = self._settings(file, written, chains, now)
        if not self.places.files.alone:
            check_files(settings, self.document, self.faults)
        settings = replace(settings, warnings=tuple(self.faults.warnings))
        return Loaded(settings, self.document, file, written, MappingProxyType(addresses.secret_files))

    def _settings(
        self, file: ConfigFile, written: tuple[WrittenJob, ...], chains: Chains, now: datetime
    ) -> Settings:
        state_dir = self._state_dir(file)
        zone = ZoneInfo(file.timezone) if file.timezone else machine_zone()
        primary, fallbacks = self._main_chain(file, chains)
        auxiliary = self._auxiliary(file, chains)
        addresses = chains.addresses
        delivery = Delivery(self.document, addresses, self.faults, state_dir)
        targets, alerts = delivery.targets(file.delivery), delivery.alerts(file.alerts)
        shared = self._shared(
            file, chains, (primary, fallbacks), auxiliary, delivery.names(), zone=zone, now=now
        )
        return Settings(
            source=self.document.file.absolute(),
            timezone=zone,
            database=self._database(file, state_dir),
            state_dir=state_dir,
            secret_keys=self._secret_keys(file, state_dir),
            registry=chains.registry,
            chain=tuple(dict.fromkeys((*(primary or ()), *(fallbacks or ())))),
            jobs=Builder(shared, chains, addresses, self.faults).jobs(written),
            auxiliary=auxiliary,
            limits=_limits(file),
            listen=listen_address(file.server.listen),
            log_level=file.logging.level or "info",
            log_format=file.logging.format or LogFormat.AUTO,
            job_timeout=file.defaults.timeout or DEFAULT_TIMEOUT,
            follows_machine_zone=not file.timezone,
            delivery=targets,
            alerts=alerts,
            jobs_dir=jobs_dir(file.jobs_dir, self.places),
        )

    def _main_chain(self, file: ConfigFile, chains: Chains) -> tuple[Targets | None, Targets | None]:
        """Return the primary and the fallbacks; either is None when it has faults."""
        if {"fallback_model", "fallback_providers"} <= self.document.data.keys():
            wrong, mend = "says again what fallback_providers says", "keep fallback_providers alone"
            self.faults.add(self.document, ("fallback_model",), wrong, mend, key=True)
        primary = chains.settled(self.document, _primary(file))
        fallbacks = chains.settled(self.document, _fallbacks(file))
        if fallbacks and not file.model and not self._touched("model"):
            self.faults.add(
                self.document, ("model",), "is missing", "add `model: provider/model`, the primary target"
            )
        broken = self._touched("fallback_providers") or self._touched("fallback_model")
        return (None if self._touched("model") else primary), (None if broken else fallbacks)

    def _shared(
        self,
        file: ConfigFile,
        chains: Chains,
        main: tuple[Targets | None, Targets | None],
        auxiliary: Mapping[str, AuxiliaryTask],
        deliver_to: frozenset[str],
        *,
        zone: ZoneInfo,
        now: datetime,
    ) -> Shared:
        primary, fallbacks = main
        defaults, path = file.defaults, ("defaults",)
        own = [w for w in written_in(defaults, path) if w[0][1] == "model"]
        others = [w for w in written_in(defaults, path) if w[0][1] == "fallback"]
        settled_own = chains.settled(self.document, own)
        settled_others = chains.settled(self.document, others)
        return Shared(
            document=self.document,
            defaults=defaults,
            primary=settled_own if own or self._touched("defaults", "model") else primary,
            fallbacks=fallbacks,
            default_fallbacks=fallbacks if defaults.fallback is None else settled_others,
            auxiliary=auxiliary,
            deliver_to=deliver_to,
            zone=zone,
            now=now,
        )

    def _auxiliary(self, file: ConfigFile, chains: Chains) -> Mapping[str, AuxiliaryTask]:
        tasks: dict[str, AuxiliaryTask] = {}
        for name, row in _auxiliary_rows(file):
            path = ("auxiliary", name)
            self._check_auxiliary(row, path)
            chain = chains.settled(self.document, written_for(row, path))
            tasks[name] = AuxiliaryTask(chain or (), row.fallback_to_main, row.timeout)
        return MappingProxyType(tasks)

    def _check_auxiliary(self, row: AuxiliaryRow, path: KeyPath) -> None:
        """Note a target that is half there, and a task that nobody may be asked for."""
        has, lacks = ("provider", "model") if row.provider else ("model", "provider")
        if (row.provider is None) != (row.model is None):
            self.faults.add(self.document, (*path, lacks), f"is missing beside {has}", f"add `{lacks}: …`")
        elif row.provider is None and not row.fallback_chain and not row.fallback_to_main:
            wrong, mend = "leaves nobody to ask", "name a provider and a model, or remove fallback_to_main"
            self.faults.add(self.document, (*path, "fallback_to_main"), wrong, mend)

    def _state_dir(self, file: ConfigFile) -> Path:
        if file.state_dir is None:
            return self.places.default_state_dir()
        return self.places.absolute(file.state_dir)

    def _database(self, file: ConfigFile, state_dir: Path) -> str:
        try:
            return database_url(file.database or DEFAULT_DATABASE, state_dir)
        except ValueError as exc:
            wrong, _, mend = str(exc).partition("; ")
            self.faults.add(self.document, ("database",), wrong, mend)
            return ""

    def _secret_keys(self, file: ConfigFile, state_dir: Path) -> tuple[SecretReference, ...]:
        if not file.secret_key:
            return (SecretReference("file", str(state_dir / "secret.key")),)
        return tuple(self.places.reference(key) for key in file.secret_key)

    def _touched(self, *path: str) -> bool:
        return self.faults.under(self.document, path)


def _limits(file: ConfigFile) -> Limits:
    given = {key: value for key, value in file.limits if value is not None}
    return Limits(**given)


def _auxiliary_rows(file: ConfigFile) -> Iterator[tuple[str, AuxiliaryRow]]:
    return ((name, row) for name, row in file.auxiliary if row is not None)


def _primary(file: ConfigFile) -> list[Written]:
    return [(("model",), file.model)] if file.model else []


def _fallbacks(file: ConfigFile) -> list[Written]:
    if file.fallback_model is not None:
        return [(("fallback_model",), file.fallback_model)]
    return [(("fallback_providers", number), row) for number, row in enumerate(file.fallback_providers)]


def _written_at_top(file: ConfigFile) -> Iterator[Written]:
    """Yield every target of the main file outside its jobs."""
    yield from _primary(file)
    yield from _fallbacks(file)
    yield from written_in(file.defaults, ("defaults",))
    for name, row in _auxiliary_rows(file):
        yield from written_for(row, ("auxiliary", name))
