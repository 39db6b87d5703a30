"""What is asked of a model, and what a good answer is: the two values that cross the chain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any


class ApiMode(StrEnum):
    """Which of the OpenAI HTTP interfaces a provider speaks."""

    CHAT_COMPLETIONS = "chat_completions"
    RESPONSES = "responses"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a job may tune; None leaves the provider's own default.

    `response_format` is the JSON Schema that answers must fit, checked (`answer_schema.check`).
    """

    temperature: float | None = None
    max_output_tokens: int | None = None
    reasoning_effort: str | None = None
    seed: int | None = None
    response_format: Mapping[str, Any] | None = None
    extra_body: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Correction:
    """An answer that did not do, and what is said about it: the conversation goes on with both."""

    answer: str
    remark: str


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, rendered: the same value goes to every target of a chain."""

    prompt: str
    system: str | None = None
    parameters: Parameters = Parameters()
    correction: Correction | None = None

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """Who said what so far, `user` or `assistant` with their text; a user is always the last."""
        asked = ("user", self.prompt)
        if self.correction is None:
            return (asked,)
        return asked, ("assistant", self.correction.answer), ("user", self.correction.remark)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them; None where it said nothing."""

    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A proved answer: the status says completed and `text` is not blank."""

    text: str
    truncated: bool = False
    usage: Usage = Usage()
