"""Jobs settled: defaults merged in, chains resolved, schedules and texts made sure of, names taken once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo

from jobs.credential import SecretReference
from jobs.definition import Auxiliary, Job, OnOverflow
from jobs.target import Target
from scheduler.config.addresses import Addresses
from scheduler.config.advice import Advice
from scheduler.config.chains import Chains
from scheduler.config.definitions import Definitions
from scheduler.config.gather import Faults
from scheduler.config.job_files import WrittenJob
from scheduler.config.lookups import LookupCheck
from scheduler.config.merged import Merged
from scheduler.config.references import check_references
from scheduler.config.schema import JobKeys, PartialJob
from scheduler.config.settings import AuxiliaryTask, ScheduledJob
from scheduler.config.sources import Document
from scheduler.config.texts import TextReader, Texts, moved
from scheduler.config.timing import Timing

Targets = tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all jobs of one configuration share. Targets are None when one of them has faults.

    `primary` and `default_fallbacks` are those of `defaults`, else of the main chain; `fallbacks` are
    the main chain's. `document` is the main file. `deliver_to` are the names of all delivery targets.
    """

    document: Document
    defaults: JobKeys
    primary: Targets | None
    fallbacks: Targets | None
    default_fallbacks: Targets | None
    auxiliary: Mapping[str, AuxiliaryTask]
    deliver_to: frozenset[str]
    zone: ZoneInfo
    now: datetime


@dataclass(slots=True)
class Builder:
    """Makes jobs of what is written; what repeats from job to job is looked at once."""

    shared: Shared
    chains: Chains
    addresses: Addresses
    faults: Faults
    _names: dict[str, WrittenJob] = field(default_factory=dict)
    _heartbeats: dict[SecretReference, str] = field(default_factory=dict)
    _merged: Merged = field(init=False)
    _definitions: Definitions = field(init=False)
    _timing: Timing = field(init=False)
    _texts: TextReader = field(init=False)
    _advice: Advice = field(init=False)
    _lookups: LookupCheck = field(init=False)

    def __post_init__(self) -> None:
        shared, faults = self.shared, self.faults
        self._merged = Merged(shared.document, shared.defaults)
        self._definitions = Definitions(shared.defaults)
        self._timing = Timing(self._merged, shared.now, faults)
        self._texts = TextReader(self.chains.places, faults, shared.document, shared.defaults)
        self._advice = Advice(self._merged, faults, shared.now, self.chains.places.files.alone)
        self._lookups = LookupCheck(self._merged, self.chains.places.files, faults)

    def jobs(self, written: Iterable[WrittenJob]) -> Mapping[str, ScheduledJob]:
        """Return the sound jobs by name; the others leave faults."""
        written = tuple(written)
        self._check_references(written)
        self._texts.check_defaults()
        made = [self._job(each) for each in written]
        return MappingProxyType({job.name: job for job in made if job is not None})

    def _check_references(self, written: tuple[WrittenJob, ...]) -> None:
        shared = self.shared
        check_references(
            [
                (shared.document, ("defaults",), shared.defaults),
                *((each.document, each.path, each.row) for each in written),
            ],
            jobs={each.row.name for each in written if each.row.name is not None},
            targets=shared.deliver_to,
            compresses="compression" in shared.auxiliary,
            faults=self.faults,
        )

    def _job(self, written: WrittenJob) -> ScheduledJob | None:
        row, pick = written.row, self._merged.pick
        self._take_name(written)
        zone = ZoneInfo(name) if (name := pick(row, "timezone")) else self.shared.zone
        when = self._timing.of(written, zone)
        texts = self._texts.of(written)
        chain = self._chain(written)
        if row.name is None or texts is None or not chain:
            return None
        job = ScheduledJob(
            job=self._definition(written, row.name, texts, chain),
            schedule=when[1] if when else None,
            timezone=zone,
            enabled=pick(row, "enabled"),
            misfire_grace_time=pick(row, "misfire_grace_time"),
            catch_up=pick(row, "catch_up"),
            timetable=when[0] if when else None,
            jitter=pick(row, "jitter"),
            max_runs=pick(row, "max_runs"),
        )
        self._lookups.look(written, job.job)
        if not self.faults.under(written.document, written.path):
            self._advice.give(written, job)
        return job

    def _definition(self, written: WrittenJob, name: str, texts: Texts, chain: Targets) -> Job:
        row = written.row
        on_overflow = self._on_overflow(row)
        compresses = on_overflow is OnOverflow.COMPRESS
        return Job(
            name=moved(name),
            prompt=texts.prompt,
            chain=chain,
            system=texts.system,
            prompt_file=texts.prompt_file,
            system_file=texts.system_file,
            on_overflow=on_overflow,
            compression=self._auxiliary("compression", chain) if compresses else None,
            title=self._auxiliary("title", chain),
            heartbeat=self._heartbeat(written, name),
            **self._definitions.of(row),
        )

    def _heartbeat(self, written: WrittenJob, name: str) -> SecretReference | None:
        url = self._merged.pick(written.row, "heartbeat")
        if url is None:
            return None
        place = self._merged.place(written, "heartbeat")
        reference = self.addresses.http_url(*place, url)
        other = self._heartbeats.setdefault(reference, name)
        if other != name:
            self.faults.warn(*place, f"is that of the job {other} too: none of them would be missed alone")
        return reference

    def _on_overflow(self, row: PartialJob) -> OnOverflow:
        """Return what a job does about an overflow: it compresses where it may, and somebody can."""
        wanted: OnOverflow = self._merged.pick(row, "on_overflow") or OnOverflow.COMPRESS
        nobody = wanted is OnOverflow.COMPRESS and "compression" not in self.shared.auxiliary
        return OnOverflow.FAIL if nobody else wanted

    def _auxiliary(self, name: str, main: Targets) -> Auxiliary | None:
        """Return an auxiliary task with everybody who is asked for it: its own targets, then the job's."""
        task = self.shared.auxiliary.get(name)
        if task is None:
            return None
        chain = dict.fromkeys((*task.chain, *(main if task.fallback_to_main else ())))
        return Auxiliary(tuple(chain), task.timeout)

    def _take_name(self, written: WrittenJob) -> None:
        name = written.row.name
        first = self._names.setdefault(name, written) if name else written
        if first is written:
            return
        line = first.document.place((*first.path, "name"))[0]
        wrong = f"the name {name!r} is taken by {first.document.file}:{line}"
        self.faults.add(written.document, (*written.path, "name"), wrong, "give each job its own name")

    def _chain(self, written: WrittenJob) -> Targets:
        """Return the job's targets, the primary first; empty when there are faults or none."""
        primary, fallbacks = self._primary(written), self._fallbacks(written)
        if primary == () and not self.faults.under(written.document, written.path):
            place = (*written.path, "model")
            self.faults.add(
                written.document, place, "is missing", "add `model: provider/model` here or at the top"
            )
        return tuple(dict.fromkeys((*primary, *fallbacks))) if primary and fallbacks is not None else ()

    def _primary(self, written: WrittenJob) -> Targets | None:
        path = (*written.path, "model")
        if self.faults.under(written.document, path):
            return None
        if written.row.model is None:
            return self.shared.primary
        return self.chains.settled(written.document, [(path, written.row.model)])

    def _fallbacks(self, written: WrittenJob) -> Targets | None:
        path = (*written.path, "fallback")
        if "fallback" not in written.row.model_fields_set or written.row.fallback is None:
            inherited = "fallback" in written.row.model_fields_set
            return self.shared.fallbacks if inherited else self.shared.default_fallbacks
        numbered = [((*path, number), target) for number, target in enumerate(written.row.fallback)]
        return self.chains.settled(written.document, numbered)
