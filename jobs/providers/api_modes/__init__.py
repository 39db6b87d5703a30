"""The OpenAI HTTP interfaces: per mode a module of pure functions with the same names (`Mode`)."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from jobs.providers.api_modes import chat_completions, responses
from jobs.providers.api_modes.shortfall import Shortfall
from jobs.providers.api_modes.sse import sse_events
from jobs.request import ApiMode, Completion, Request

__all__ = ["MODES", "Mode", "Shortfall", "completion", "mode_of", "shortfall", "sse_events"]


class Mode(Protocol):
    """What every mode module offers."""

    @property
    def PATH(self) -> str:
        """What comes after the base URL."""

    def body(self, request: Request, *, model: str, stream: bool, store: bool | None) -> dict[str, Any]:
        """Return the JSON body of a request."""

    def shortfall(self, document: Mapping[str, Any]) -> Shortfall | None:
        """Return why a 2xx document is no proved success."""

    def completion(self, document: Mapping[str, Any]) -> Completion:
        """Return the proved answer; raises ValueError where there is none."""

    def document_of(self, events: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Return what the events of a stream add up to."""


MODES: Final[Mapping[ApiMode, Mode]] = MappingProxyType(
    {ApiMode.CHAT_COMPLETIONS: chat_completions, ApiMode.RESPONSES: responses}
)


def shortfall(document: Mapping[str, Any]) -> Shortfall | None:
    """Return why a 2xx document of either mode is no proved success; its shape tells the mode."""
    return MODES[mode_of(document)].shortfall(document)


def completion(document: Mapping[str, Any]) -> Completion:
    """Return the answer in a document of either mode; raises ValueError where `shortfall` finds none."""
    return MODES[mode_of(document)].completion(document)


def mode_of(document: Mapping[str, Any]) -> ApiMode:
    """Return the mode whose document this is: a server may answer in another one than it was asked in."""
    is_response = document.get("object") == "response" or "output" in document
    return ApiMode.RESPONSES if is_response and "choices" not in document else ApiMode.CHAT_COMPLETIONS
