"""Values out of documents that anybody may have written: counts that are counts, and how much there is."""

from typing import Any, Final

MOST_VALUES: Final = 500_000
_MOST_TOKENS: Final = 2**40


def count(value: Any) -> int | None:
    """Return a number of tokens, or None for what is none, or for more than any model has seen."""
    counts = isinstance(value, int) and not isinstance(value, bool)
    return value if counts and 0 <= value <= _MOST_TOKENS else None


def is_a_thicket(body: bytes | str) -> bool:
    """Say whether JSON may hold more than 500,000 values: parsed, each takes 50 to 200 bytes.

    16 MB of `[[],[],…` would take 400 MB. Commas and brackets in texts count too; no answer has so many.
    """
    if len(body) <= MOST_VALUES:
        return False
    if isinstance(body, str):
        return sum(map(body.count, ",[{")) > MOST_VALUES
    return sum(map(body.count, b",[{")) > MOST_VALUES
