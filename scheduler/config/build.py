"""Jobs settled: defaults merged in, chains resolved, schedules parsed, names made sure of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from jobs.definition import DEFAULT_TIMEOUT, Auxiliary, Command, Job, OnOverflow
from jobs.request import Parameters
from jobs.target import Target
from scheduler.config.chains import Chains
from scheduler.config.gather import Faults
from scheduler.config.job_files import WrittenJob
from scheduler.config.references import check_references
from scheduler.config.schema import GatherRow, JobKeys, ParametersRow, PartialJob
from scheduler.config.settings import AuxiliaryTask, ScheduledJob
from scheduler.config.sources import Document
from scheduler.triggers import Schedule, parse_schedule

Targets = tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all jobs of one configuration share. Targets are None when one of them has faults.

    `primary` and `default_fallbacks` are those of `defaults`, else of the main chain; `fallbacks` are
    the main chain's. `document` is the main file.
    """

    document: Document
    defaults: JobKeys
    primary: Targets | None
    fallbacks: Targets | None
    default_fallbacks: Targets | None
    auxiliary: Mapping[str, AuxiliaryTask]
    zone: ZoneInfo
    now: datetime


@dataclass(slots=True)
class Builder:
    """Makes jobs of what is written; what repeats from job to job is looked at once."""

    shared: Shared
    chains: Chains
    faults: Faults
    _schedules: dict[tuple[str, str], Schedule | ValueError] = field(default_factory=dict)
    _names: dict[str, WrittenJob] = field(default_factory=dict)

    def jobs(self, written: Iterable[WrittenJob]) -> Mapping[str, ScheduledJob]:
        """Return the sound jobs by name; the others leave faults."""
        written = tuple(written)
        self._check_references(written)
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
            compresses="compression" in shared.auxiliary,
            faults=self.faults,
        )

    def _job(self, written: WrittenJob) -> ScheduledJob | None:
        row = written.row
        self._take_name(written)
        zone = ZoneInfo(name) if (name := self._pick(row, "timezone")) else self.shared.zone
        schedule = self._schedule(written, zone)
        chain = self._chain(written)
        if row.name is None or row.prompt is None or not chain:
            return None
        return ScheduledJob(
            job=self._definition(row, row.name, row.prompt, chain),
            schedule=schedule,
            timezone=zone,
            enabled=self._pick(row, "enabled"),
            misfire_grace_time=self._pick(row, "misfire_grace_time"),
            catch_up=self._pick(row, "catch_up"),
        )

    def _definition(self, row: PartialJob, name: str, prompt: str, chain: Targets) -> Job:
        timeout: timedelta | None = self._pick(row, "timeout")
        on_overflow = self._on_overflow(row)
        compresses = on_overflow is OnOverflow.COMPRESS
        return Job(
            name=name,
            prompt=prompt,
            chain=chain,
            system=self._pick(row, "system"),
            description=self._pick(row, "description"),
            tags=self._pick(row, "tags"),
            vars=MappingProxyType(self._pick(row, "vars")),
            fallback_on=self._pick(row, "fallback_on"),
            parameters=_parameters(self._pick(row, "parameters")),
            timeout=timeout or DEFAULT_TIMEOUT,
            gather=_command(self._pick(row, "gather")),
            context_from=tuple(dict.fromkeys(self._pick(row, "context_from"))),
            on_truncated=self._pick(row, "on_truncated"),
            on_overflow=on_overflow,
            compression=self._auxiliary("compression", chain) if compresses else None,
            title=self._auxiliary("title", chain),
            repeat_safe=self._pick(row, "repeat_safe"),
            store_prompt=self._pick(row, "store_prompt"),
        )

    def _on_overflow(self, row: PartialJob) -> OnOverflow:
        """Return what a job does about an overflow: it compresses where it may, and somebody can."""
        wanted: OnOverflow = self._pick(row, "on_overflow") or OnOverflow.COMPRESS
        nobody = wanted is OnOverflow.COMPRESS and "compression" not in self.shared.auxiliary
        return OnOverflow.FAIL if nobody else wanted

    def _auxiliary(self, name: str, main: Targets) -> Auxiliary | None:
        """Return an auxiliary task with everybody who is asked for it: its own targets, then the job's."""
        task = self.shared.auxiliary.get(name)
        if task is None:
            return None
        chain = dict.fromkeys((*task.chain, *(main if task.fallback_to_main else ())))
        return Auxiliary(tuple(chain), task.timeout)

    def _pick(self, row: JobKeys, key: str) -> Any:
        """Return the job's own value, else that of `defaults`, else the built-in one."""
        return getattr(row if key in row.model_fields_set else self.shared.defaults, key)

    def _take_name(self, written: WrittenJob) -> None:
        name = written.row.name
        first = self._names.setdefault(name, written) if name else written
        if first is written:
            return
        line = first.document.place((*first.path, "name"))[0]
        wrong = f"the name {name!r} is taken by {first.document.file}:{line}"
        self.faults.add(written.document, (*written.path, "name"), wrong, "give each job its own name")

    def _schedule(self, written: WrittenJob, zone: ZoneInfo) -> Schedule | None:
        text = written.row.schedule
        if text is None:
            return None
        parsed = self._schedules.get((text, zone.key))
        if parsed is None:
            parsed = self._schedules[(text, zone.key)] = _parsed(text, zone, self.shared.now)
        if not isinstance(parsed, ValueError):
            return parsed
        wrong, _, mend = str(parsed).partition("; ")
        mend = mend or "such as `0 7 * * mon-fri`, `@daily`, `every 90s`, `at 2026-12-01T09:00`"
        self.faults.add(written.document, (*written.path, "schedule"), wrong, mend)
        return None

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


def _parsed(text: str, zone: ZoneInfo, now: datetime) -> Schedule | ValueError:
    try:
        return parse_schedule(text, zone, now=now)
    except ValueError as exc:
        return exc
    except OverflowError:
        return ValueError("a time too far away; choose one within the years 1970 to 9000")


def _command(row: GatherRow | None) -> Command | None:
    if row is None:
        return None
    given = {key: value for key in ("timeout", "max_bytes") if (value := getattr(row, key)) is not None}
    return Command(row.command, row.shell, **given)


def _parameters(row: ParametersRow) -> Parameters:
    return Parameters(
        temperature=row.temperature,
        max_output_tokens=row.max_output_tokens,
        reasoning_effort=row.reasoning_effort,
        seed=row.seed,
        response_format=MappingProxyType(row.response_format) if row.response_format is not None else None,
        extra_body=MappingProxyType(row.extra_body),
    )
