"""`silent_when`: expressions over an answer and the one before it."""

import pytest

from jobs.errors import TemplateError
from jobs.prompt import check_expression, expression_asks_for, holds


@pytest.mark.parametrize(
    ("expression", "silent"),
    [
        ("output == last_output", True),
        ("output != last_output", False),
        ("'all quiet' in output | lower", True),
        ("output | length > 100", False),
        ("output", True),
        ("'' ", False),
        ("not last_output or output.startswith('All')", True),
    ],
)
def test_an_expression_is_true_or_false_of_an_answer(expression: str, silent: bool) -> None:
    check_expression(expression)

    assert holds(expression, {"output": "All quiet.", "last_output": "All quiet."}) is silent


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("answer == 1", "'answer' is not a name that expressions have; there are last_output, output"),
        ("output }} {{ output", "goes on after its end"),
        ("output and", "unexpected"),
        ("{{ output }}", "expected token"),
        ("(" * 5000 + "output" + ")" * 5000, "too large or too deep"),
    ],
)
def test_what_is_no_expression_is_told_before_any_run(expression: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words.replace("(", r"\(")):
        check_expression(expression)


@pytest.mark.parametrize(
    "expression",
    ["'a' * 99999999", "9 ** 99999", "output.__class__", "range(99999999) | list", "output[99]", "1 / 0"],
)
def test_what_fails_or_would_not_fit_is_refused_when_it_is_judged(expression: str) -> None:
    with pytest.raises(TemplateError):
        holds(expression, {"output": "x", "last_output": ""})


def test_the_last_answer_is_read_only_for_an_expression_that_names_it() -> None:
    asked = [expression_asks_for("last_output", text) for text in ("output == last_output", "output == '-'")]

    assert asked == [True, False]
