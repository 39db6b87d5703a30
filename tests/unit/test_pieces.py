"""How texts are cut, joined and cleaned around a helper model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.auxiliary import LONGEST_TITLE, one_line, pieces
from jobs.overflow import without_front
from jobs.prompt import asks_for

LINES = st.lists(st.text(max_size=30), max_size=60).map("\n".join)


@given(text=LINES, size=st.integers(2, 200))
def test_pieces_put_together_are_the_text_and_none_is_too_long(text: str, size: int) -> None:
    cut = pieces(text, size)

    assert "".join(cut) == text
    assert all(len(piece) <= size for piece in cut)
    assert len(cut) <= 2 * len(text) // size + 1


def test_pieces_end_with_a_line_where_one_ends_near() -> None:
    assert pieces("one\ntwo\nthree\nfour\n", 9) == ["one\ntwo\n", "three\n", "four\n"]


@given(text=st.text(min_size=500, max_size=3000))
def test_what_is_left_of_a_text_is_its_end_and_says_how_much_is_gone(text: str) -> None:
    note, _, rest = without_front(text).partition("\n")

    assert text.endswith(rest)
    assert len(text) * 3 // 8 - 1 <= len(rest) <= len(text) // 2
    assert note == f"[the first {len(text) - len(rest):,} of {len(text):,} characters are left out here]"


def test_a_short_text_is_left_whole() -> None:
    assert without_front("x" * 499) == "x" * 499


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Disks are full", "Disks are full"),
        ("\n\n**Title: Disks are full**\nbecause of logs", "Disks are full"),
        ('# "Disks\u00a0 are \t full"', "Disks are full"),
        ("---\x1b[31m red", "--- [31m red"),
        ("`` ''\n \n", None),
        ("", None),
        ("word " * 40, f"{('word ' * 16).rstrip()}…"),
    ],
)
def test_a_title_is_one_clean_line(said: str, title: str | None) -> None:
    assert one_line(said) == title
    assert title is None or len(title) <= LONGEST_TITLE


def test_a_name_is_asked_for_where_a_template_uses_it_not_where_its_prose_says_it() -> None:
    assert asks_for("gathered", "What was gathered: {{ gathered }}")
    assert asks_for("context", None, "{% for name in context %}{{ name }}{% endfor %}")
    assert not asks_for("gathered", "What was gathered yesterday?", None)
    assert not asks_for("last_output", "{% set last_output = 1 %}")
