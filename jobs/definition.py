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


@dataclass(frozen=True, slots=True)
class Job:
    """One job as the files define it. `chain` is never empty; its first target is the primary."""

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
    on_truncated: OnTruncated = OnTruncated.KEEP
    repeat_safe: bool = False
    store_prompt: bool = True
