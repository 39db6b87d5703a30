"""Prompt templates: what they may name, and what the sandbox refuses."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from jobs.errors import TemplateError
from jobs.prompt import LONGEST_PROMPT, check_template, render

NAMES = {
    "job": "digest",
    "scheduled_for": datetime(2026, 7, 1, 5, tzinfo=UTC),
    "now": datetime(2026, 7, 1, 5, 0, 1, tzinfo=UTC),
    "vars": {"n": 3},
}


def rendered(text: str) -> str:
    return render(text, zone=ZoneInfo("Europe/Berlin"), names=NAMES)


def test_a_template_makes_up_no_half_characters() -> None:
    """Neither a request nor a database could hold one, in a text or in what is wrong with it."""
    assert rendered("{{ '\\ud800' }}a") == "\ufffda"
    with pytest.raises(TemplateError) as refused:
        rendered("{{ vars['\\ud800'] }}")
    assert str(refused.value).encode()


def test_times_are_shown_in_the_zone_of_the_job() -> None:
    assert rendered("{{ scheduled_for | localtime('%A %H:%M') }}") == "Wednesday 07:00"


def test_vars_loops_and_macros_work() -> None:
    text = (
        "{% macro m(x) %}<{{ x }}>{% endmacro %}{% for i in range(vars.n) %}{{ m(loop.index) }}{% endfor %}"
    )

    check_template(text)
    assert rendered(text) == "<1><2><3>"


@pytest.mark.parametrize("text", ["{{ output }}", "{{ jobb }}", "{% if secret %}x{% endif %}"])
def test_a_name_that_no_prompt_has_is_found_before_any_run(text: str) -> None:
    with pytest.raises(TemplateError, match="is not a name that prompts have"):
        check_template(text)


def test_a_syntax_error_says_its_line() -> None:
    with pytest.raises(TemplateError, match="line 2"):
        check_template("fine\n{% if %}")


@pytest.mark.parametrize(
    "text",
    [
        "{{ vars.nothing }}",
        "{{ job.__class__.__mro__ }}",
        "{{ ''.format.__globals__ }}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ vars.n ** (10 ** 9) }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% include 'other' %}",
        "{{ 1 / 0 }}",
        "{{ job.append(1) }}",
        "{{ 5 | localtime }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_what_a_template_may_not_do_ends_as_a_template_error(text: str) -> None:
    with pytest.raises(TemplateError):
        rendered(text)


def test_a_prompt_has_a_longest_length() -> None:
    with pytest.raises(TemplateError, match="grows past"):
        rendered("{% for i in range(1000) %}{% for j in range(300) %}0123456789{% endfor %}{% endfor %}")

    assert LONGEST_PROMPT == 2_000_000
