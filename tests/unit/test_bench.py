"""The arithmetic of `make bench`: what is told of a figure, and how samples are summed."""

import pytest

from bench.figures import Figure, as_markdown, percentile
from bench.profiles import summed


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("a", "ratio", 1.0, most=1.0), True),
        (Figure("a", "ratio", 1.01, most=1.0), False),
        (Figure("e", "rate", 1000.0, least=1000), True),
        (Figure("e", "rate", 999.0, least=1000), False),
        (Figure("e", "what was not measured", float("nan"), least=1000), False),
        (Figure("d", "what was not measured", float("nan"), most=1), False),
        (Figure("a", "no target", 7.0), None),
    ],
    ids=lambda value: value.what if isinstance(value, Figure) else str(value),
)
def test_a_figure_meets_its_target_or_does_not(figure: Figure, met: bool | None) -> None:
    assert figure.met is met


def test_a_missed_target_is_said_in_the_table() -> None:
    table = as_markdown([Figure("g", "a scrape", 123.4, " ms", most=80)])

    assert table.splitlines()[-1] == "| g | a scrape |  |  | 123 ms | ≤ 80 ms | MISSED |"


def test_a_percentile_is_a_value_that_was_measured() -> None:
    late = [float(number) for number in range(100, 0, -1)]

    assert [percentile(late, share) for share in (0, 0.5, 0.99, 1)] == [1.0, 51.0, 100.0, 100.0]


def test_samples_are_summed_by_library_and_by_function_of_the_product() -> None:
    stacks = [
        "run (asyncio/runners.py:1);finish (jobs/store/runs.py:9);execute (sqlalchemy/engine/base.py:5) 3",
        "run (asyncio/runners.py:1);finish (jobs/store/runs.py:8) 1",
    ]

    profile = summed(stacks)

    assert profile.libraries == [("sqlalchemy", 0.75), ("promptd", 0.25)]
    assert profile.functions == [("jobs/store/runs.py finish", 1.0)]
