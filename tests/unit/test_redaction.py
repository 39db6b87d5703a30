"""Long texts are redacted beside the loop, short ones in it."""

import threading

import pytest

from jobs.redaction import redacted

pytestmark = pytest.mark.anyio


def where(text: str) -> str:
    """Stand in for a redactor: say in which thread it was asked."""
    return f"{len(text)} {threading.get_ident()}"


@pytest.mark.parametrize(("length", "beside"), [(1_000, False), (200_000, True)])
async def test_only_a_long_text_leaves_the_loop(length: int, beside: bool) -> None:
    said, thread = (await redacted(where, "x" * length)).split()

    assert int(said) == length
    assert (int(thread) != threading.get_ident()) is beside
