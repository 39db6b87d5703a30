"""Work that is counted where time would be measured: calls, and characters that are looked at."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, SupportsIndex


class Read(str):
    """A text that counts how many of its characters are looked at; what searches all of it looks at all."""

    looked_at = 0

    def __contains__(self, other: str, /) -> bool:  # type: ignore[override]
        """Say whether another text stands in it."""
        self.looked_at += len(self)
        return super().__contains__(other)

    def __getitem__(self, at: SupportsIndex | slice, /) -> str:
        """Return a part of it."""
        part = super().__getitem__(at)
        self.looked_at += len(part)
        return part


def calls(deed: Callable[[], object], *, most: int) -> int:
    """Return how many calls a deed makes, of Python and of C; it fails at once where they are too many."""
    counted = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")
        assert counted <= most, f"more than {most:,} calls"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        deed()
    finally:
        sys.setprofile(before)
    return counted
