"""What a job is, without its when: the prompt, the chain that may answer it, and its limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from jobs.errors import ErrorClass
from jobs.request import Parameters
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
    newest outputs go into the prompt.
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

    @property
    def targets(self) -> tuple[Target, ...]:
        """Everybody whom a run may ask, auxiliary work included."""
        tasks = [task for task in (self.compression, self.title) if task is not None]
        return tuple(dict.fromkeys((*self.chain, *(each for task in tasks for each in task.chain))))
