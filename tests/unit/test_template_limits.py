"""Limits of templates: their words, the items that a filter walks, and the time inside of one expression."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from freezegun import freeze_time

from jobs.errors import TemplateError
from jobs.prompt import check_expression, check_template, render
from jobs.sandbox import MOST_WORDS
from jobs.template_tree import LONGEST_NUMBER
from jobs.template_values import MOST_ITEMS


def rendered(text: str, *, within: float = 60.0, **names: Any) -> str:
    return render(text, zone=ZoneInfo("UTC"), names=names, within=within)


def test_comparisons_within_one_expression_end_by_the_time_they_take() -> None:
    """A second passes whenever the clock is looked at, and at no other time."""
    compared = "{% set t = vars.words %}{{ [" + "t == t," * 1000 + "] | length }}"

    with freeze_time(auto_tick_seconds=1), pytest.raises(TemplateError, match="goes on after 900 s"):
        rendered(compared, vars={"words": ["a", "b"]}, within=900)


def test_no_difference_makes_a_number_too_long() -> None:
    known = {"longest": 2**LONGEST_NUMBER - 1}

    with pytest.raises(TemplateError, match="more than 100,000 bits"):
        rendered("{{ (vars.longest - (0 - vars.longest)) and 1 }}", vars=known)
    assert rendered("{{ vars.longest / vars.longest }}", vars=known) == "1.0"


@pytest.mark.parametrize(
    "text",
    [
        "{{ gathered.splitlines() | length }}",
        "{{ gathered | list | length }}",
        "{{ gathered | map('upper') | first }}",
        "{{ vars.many | map('upper') | first }}",
        "{{ vars.many | list | length }}",
        "{{ vars.many | select | first }}",
        "{{ vars.many | sort | first }}",
        "{{ vars.many | unique | first }}",
        "{{ vars.many | join }}",
        "{{ [vars.many[:300000], vars.many[:300000]] | length }}",
        "{% set both = vars.many[:300000] + vars.many[:300000] %}{{ both | length }}",
    ],
)
def test_no_filter_walks_more_items_than_a_moment_allows(text: str) -> None:
    many = MOST_ITEMS + 1

    with pytest.raises(
        TemplateError, match="a list of more than 500,000 items; split or take a shorter text"
    ):
        rendered(text, gathered="\n" * many, vars={"many": [""] * many})


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{ gathered.splitlines() | select('ge', '3') | list | length }}", "10000"),
        (
            "{% for each in gathered.splitlines() if 'ne 39998' in each %}{{ each }}{% endfor %}",
            "39998 line 39998 of a log",
        ),
        ("{{ gathered.splitlines() | map('trim') | unique | sort | first }}", "00000 line 0 of a log"),
        ("{{ gathered.split() | unique | sort | first }}", "0"),
    ],
)
def test_a_megabyte_of_lines_is_filtered(text: str, made: str) -> None:
    lines = "".join(f"{n:05} line {n} of a log\n" for n in range(40_000))
    assert len(lines) > 10**6

    assert rendered(text, gathered=lines) == made


@pytest.mark.parametrize("text", ["{{ [" + "1," * MOST_WORDS + "] }}", "{##}" * MOST_WORDS])
def test_a_template_of_many_words_is_refused_before_it_is_compiled(text: str) -> None:
    with pytest.raises(TemplateError, match=r"more than 20,000 words and signs .*; make it simpler"):
        check_template(text)
    with pytest.raises(TemplateError, match="more than 20,000 words"):
        rendered(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ dict(a=1, a=2) }}", "keyword argument repeated"),
        ("{% macro m(a, a) %}{% endmacro %}", "duplicate argument"),
        ("{% for a in job %}" * 25 + "{% endfor %}" * 25, "too many statically nested blocks"),
    ],
)
def test_what_python_refuses_where_jinja_does_not_is_a_fault_of_the_template(text: str, why: str) -> None:
    with pytest.raises(TemplateError, match=f"{why}.*; take that out"):
        check_template(text)
    with pytest.raises(TemplateError, match=why):
        rendered(text)


def test_what_python_refuses_is_a_fault_of_an_expression() -> None:
    with pytest.raises(TemplateError, match="keyword argument repeated"):
        check_expression("dict(a=1, a=2)")
