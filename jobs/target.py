"""A target: one provider and one model of it, travelling together through the chain."""

from dataclasses import dataclass

from jobs.names import ProviderName
from jobs.request import ApiMode


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request can go. Nothing of it is ever overlaid on another target.

    `larger_context`: it takes what was too long for those before it.
    """

    provider: ProviderName
    model: str
    base_url: str
    api_mode: ApiMode
    larger_context: bool = False

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"
