"""Why a document with a 2xx status is no proved success: one value that both API modes return."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What a document lacks to be an answer.

    `reason` is a slug that names the lack (`status-failed`, `no-choices`, `empty-text`). `error` is the
    error object that came along, in the providers' own shape, or None: it is classified before `reason` is.
    """

    reason: str
    error: Mapping[str, Any] | str | None = None


def stated_error(document: Mapping[str, Any]) -> Mapping[str, Any] | str | None:
    """Return the `error` of a document; an empty one (`null`, `{}`, `""`, `false`) states nothing."""
    error = document.get("error")
    return error if isinstance(error, Mapping | str) and error else None
