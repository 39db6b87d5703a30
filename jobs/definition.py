"""What a job is, without its when: the prompt, the chain that may answer it, and its limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jobs.credential import SecretReference
from jobs.delivery_state import Deliver
from jobs.errors import ErrorClass
from jobs.request import Parameters
from jobs.run import Concurrency
from jobs.target import Target

ASK = "ask"
DEFAULT_TIMEOUT = timedelta(minutes=10)


class OnTruncated(StrEnum):
    """What a finish because of length means for the run."""

    KEEP = "keep"
    FAIL = "fail"


class OnOverflow(StrEnum):
    """What is done about a request that is too long for its model."""

    COMPRESS = "compress"
    TRUNCATE = "truncate"
    FAIL = "fail"


class OnCrash(StrEnum):
    """What becomes of a run whose process has gone: its call may have been paid."""

    ABANDON = "abandon"
    RERUN = "rerun"


@dataclass(frozen=True, slots=True)
class Retry:
    """Another try of a run whose whole chain has failed for one of the classes in `on`, `max` times at most.

    The n-th further try waits for the n-th of `delays`, the last of them for every one after it.
    """

    max: int
    delays: tuple[timedelta, ...]
    on: frozenset[ErrorClass]

    def delay(self, number: int) -> timedelta:
        """Return how long the further try of this number waits, counted from 1."""
        return self.delays[min(number, len(self.delays)) - 1]


@dataclass(frozen=True, slots=True)
class Command:
    """A program that a job runs: its words, or with `shell` one line that a shell reads.

    `timeout` bounds it with everything it starts; of its standard output `max_bytes` are kept.
    """

    words: tuple[str, ...]
    shell: bool = False
    timeout: timedelta = timedelta(seconds=60)
    max_bytes: int = 200_000


@dataclass(frozen=True, slots=True)
class Auxiliary:
    """A helper task of a job: everybody who is asked for it, in order. `timeout` bounds each request."""

    chain: tuple[Target, ...]
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One job as the files define it. `chain` is never empty; its first target is the primary.

    `compression` is there exactly where `on_overflow` is `compress`. Of the jobs in `context_from` the
    newest outputs go into the prompt; a success of one in `after` makes a run of this one. Where there is a
    `prompt_file`, `prompt` is empty until a run reads it; `system_file` likewise. `heartbeat` is a URL, which
    is kept like a secret: whoever knows it can say that the job is alive.
    """

    name: str
    prompt: str
    chain: tuple[Target, ...]
    system: str | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    vars: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    fallback_on: frozenset[ErrorClass] = frozenset()
    parameters: Parameters = Parameters()
    timeout: timedelta = DEFAULT_TIMEOUT
    gather: Command | None = None
    context_from: tuple[str, ...] = ()
    on_truncated: OnTruncated = OnTruncated.KEEP
    on_overflow: OnOverflow = OnOverflow.FAIL
    compression: Auxiliary | None = None
    title: Auxiliary | None = None
    repeat_safe: bool = False
    store_prompt: bool = True
    prompt_file: Path | None = None
    system_file: Path | None = None
    condition: Command | None = None
    after: tuple[str, ...] = ()
    retry: Retry | None = None
    concurrency: Concurrency = Concurrency.FORBID
    on_crash: OnCrash = OnCrash.ABANDON
    max_tokens_per_day: int | None = None
    silent_when: str | None = None
    pause_after_failures: int | None = None
    deliver: tuple[Deliver, ...] = ()
    heartbeat: SecretReference | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        """Everybody whom a run may ask, auxiliary work included."""
        tasks = [task for task in (self.compression, self.title) if task is not None]
        return tuple(dict.fromkeys((*self.chain, *(each for task in tasks for each in task.chain))))
