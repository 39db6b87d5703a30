"""The word that `promptd job next` has for an instant that a change of the clock shaped."""

from datetime import UTC, datetime

import pytest

from scheduler.cli.job_next import clock_change
from scheduler.timetable import Timetable
from scheduler.zone_pieces import Fold, Gap

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FORWARD = "2026-03-29T01:00+00:00"  # Berlin springs from two to three
FIRST, SECOND = "2026-10-25T00:30+00:00", "2026-10-25T01:30+00:00"  # and back from three to two


@pytest.mark.parametrize(
    ("lines", "gap", "fold", "when", "said"),
    [
        (("30 2 * * *",), None, Fold.LAST, SECOND, "clock set back: the second of two"),
        (("30 2 * * *",), None, Fold.BOTH, FIRST, "clock set back: the first of two"),
        (("30 2 * * *",), None, Fold.BOTH, SECOND, "clock set back: the second of two"),
        (("30 2 * * *", "every 30m"), None, None, FIRST, "clock set back: the first of two"),
        (("every 30m", "0 9 * * *"), None, None, FIRST, None),
        (("30 2 * * *", "0 3 * * *"), None, None, FORWARD, "clock set forward: the hour does not exist"),
        (("30 2 * * *", "0 3 * * *"), Gap.SKIP, None, FORWARD, None),
        (("0 3 * * *", "0 * * * *"), None, None, FORWARD, None),
        (("at 2026-03-29T02:30",), None, None, FORWARD, "clock set forward: the hour does not exist"),
        (("at 2026-03-29T03:00",), None, None, FORWARD, None),
        (("at 2026-10-25T02:30",), None, Fold.LAST, SECOND, "clock set back: the second of two"),
        (("at 2026-10-25T02:30+01:00",), None, None, SECOND, None),
    ],
)
def test_an_instant_is_noted_for_the_line_that_has_it(
    lines: tuple[str, ...], gap: Gap | None, fold: Fold | None, when: str, said: str | None
) -> None:
    """Under every policy, in a list too; elapsed time is shaped by nothing."""
    schedule = Timetable(lines, "Europe/Berlin", gap, fold).schedule(now=NOW, anchor=NOW)

    note = clock_change(schedule, datetime.fromisoformat(when))

    assert note is None if said is None else (note or "").startswith(said)
