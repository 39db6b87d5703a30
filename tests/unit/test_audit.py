"""The audit of one job, held against deliberate damage: what is missing, doubled, invented, miscounted."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.run import RunState
from jobs.store.replay import Entry
from scheduler.audit import Fault, Kind, Owed, judged
from scheduler.periods import Period
from scheduler.triggers import parse_schedule

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MINUTELY = parse_schedule("* * * * *", ZoneInfo("UTC"), now=NOW)
HALF_HOURLY = parse_schedule("*/30 * * * *", ZoneInfo("UTC"), now=NOW)


def at(minutes: float) -> datetime:
    return NOW + minutes * MINUTE


def row(minute: float, *, first: float | None = None, count: int = 1, reason: str | None = None) -> Entry:
    """Return a row of one instant, or of several up to it."""
    state = RunState.SKIPPED if reason else RunState.SUCCEEDED
    return Entry(int(minute), at(minute if first is None else first), at(minute), count, state, reason)


def owed(*periods: Period, since: float = 0, until: float = 10) -> Owed:
    """Return what was owed in these minutes; by default something was due in each."""
    return Owed.of(periods or [Period(at(0), None, MINUTELY)], since=at(since), until=at(until))


def kinds(faults: list[Fault]) -> list[tuple[Kind, int, int, int]]:
    """Return faults as (kind, first minute, last minute, count)."""
    minutes = [((each.first - NOW) // MINUTE, (each.last - NOW) // MINUTE) for each in faults]
    return [(each.kind, *pair, each.count) for each, pair in zip(faults, minutes, strict=True)]


def found(*rows: Entry, wanted: Owed | None = None) -> list[tuple[Kind, int, int, int]]:
    """Return what is wrong with these rows, sorted as the ledger sorts them."""
    return kinds(
        list(judged(wanted or owed(), sorted(rows, key=lambda each: (each.first, -each.last.timestamp()))))
    )


WHOLE = [row(minute) for minute in range(1, 11)]
SPAN = row(7, first=3, count=5, reason="overlap")
SPANNED = [*WHOLE[:2], SPAN, *WHOLE[7:]]


@pytest.mark.parametrize("rows", [WHOLE, SPANNED], ids=["singly", "with a span"])
def test_a_ledger_in_which_every_instant_has_its_row_has_no_fault(rows: list[Entry]) -> None:
    assert found(*rows) == []


@pytest.mark.parametrize("number", [0, 4, 9])
def test_a_row_that_is_gone_is_missed(number: int) -> None:
    """At the beginning, in the middle, at the end."""
    rows = [*WHOLE[:number], *WHOLE[number + 1 :]]

    assert found(*rows) == [(Kind.LOST, number + 1, number + 1, 1)]


def test_a_gap_is_one_fault_that_says_how_long_it_is() -> None:
    assert found(*WHOLE[:2], *WHOLE[7:]) == [(Kind.LOST, 3, 7, 5)]
    assert found() == [(Kind.LOST, 1, 10, 10)]


@pytest.mark.parametrize("minute", [3, 5, 7])
def test_a_row_within_a_span_is_a_second_one(minute: int) -> None:
    assert found(*SPANNED, row(minute)) == [(Kind.TWICE, minute, minute, 1)]


def test_a_second_row_of_an_instant_and_spans_that_overlap_are_found() -> None:
    assert found(*WHOLE, row(4)) == [(Kind.TWICE, 4, 4, 1)]
    assert found(*SPANNED, row(9, first=6, count=4, reason="held")) == [
        (Kind.TWICE, 6, 9, 4),
        (Kind.TWICE, 8, 8, 1),
        (Kind.TWICE, 9, 9, 1),
    ]


def test_a_row_beside_the_schedule_is_found_and_hides_nothing() -> None:
    assert found(*WHOLE, row(4.5)) == [(Kind.BESIDE, 4, 4, 1)]
    assert found(*WHOLE[:3], row(4.5), *WHOLE[4:]) == [(Kind.LOST, 4, 4, 1), (Kind.BESIDE, 4, 4, 1)]
    assert found(row(5), wanted=owed(Period(at(0), None, None))) == [(Kind.BESIDE, 5, 5, 1)]


@pytest.mark.parametrize("count", [2, 4, 6])
def test_a_span_that_counts_wrong_is_found(count: int) -> None:
    wrong = row(7, first=3, count=count, reason="overlap")

    assert found(*WHOLE[:2], wrong, *WHOLE[7:]) == [(Kind.MISCOUNTED, 3, 7, count)]


def test_a_row_ahead_of_what_is_decided_is_found() -> None:
    assert found(*WHOLE, row(11)) == [(Kind.UNDECIDED, 11, 11, 1)]


PAUSED = [Period(at(0), at(4), MINUTELY), Period(at(4), at(7), MINUTELY, paused=True)]


def test_what_falls_into_a_pause_is_skipped_for_it() -> None:
    """In a row of its own; with a delay, what fell due just before may be skipped with it."""
    wanted = owed(*PAUSED, Period(at(7), None, MINUTELY))
    pause = row(7, first=5, count=3, reason="paused")

    assert found(*WHOLE[:4], pause, *WHOLE[7:], wanted=wanted) == []
    early = row(7, first=4, count=4, reason="paused")
    assert found(*WHOLE[:3], early, *WHOLE[7:], wanted=wanted) == []
    held = row(7, first=5, count=3, reason="held")
    assert found(*WHOLE[:4], held, *WHOLE[7:], wanted=wanted) == [(Kind.NOT_PAUSED, 5, 7, 3)]
    assert found(*WHOLE, wanted=wanted) == [(Kind.NOT_PAUSED, n, n, 1) for n in (5, 6, 7)]


def test_what_fell_into_no_pause_is_not_skipped_for_one() -> None:
    """Only the newest instant before a pause may have been delayed into it."""
    wanted = owed(*PAUSED, Period(at(7), None, MINUTELY))
    resumed, later = row(8, first=5, count=4, reason="paused"), row(9, reason="paused")
    early = row(7, first=3, count=5, reason="paused")

    assert found(*WHOLE[:4], resumed, later, WHOLE[9], wanted=wanted) == [
        (Kind.PAUSED, 5, 8, 1),
        (Kind.PAUSED, 9, 9, 1),
    ]
    assert found(*WHOLE[:2], early, *WHOLE[7:], wanted=wanted) == [(Kind.PAUSED, 3, 7, 1)]


def test_each_timetable_owes_what_it_owed_while_it_was_in_force() -> None:
    """Nothing is owed between two periods, nor by one that is over at once."""
    wanted = owed(
        Period(at(0), at(2), MINUTELY),
        Period(at(4), at(4), MINUTELY),
        Period(at(5), at(29), None),
        Period(at(29), None, HALF_HOURLY),
        until=70,
    )

    assert found(row(1), row(2), row(30), row(60), wanted=wanted) == []
    assert found(row(1), row(2), row(3), row(30), row(60), wanted=wanted) == [(Kind.BESIDE, 3, 3, 1)]
    spans_the_hole = row(60, first=2, count=3, reason="held")
    assert found(row(1), spans_the_hole, wanted=wanted) == []


def test_a_long_span_of_seconds_is_judged_without_a_walk() -> None:
    """Ten years of seconds are one row, and one look."""
    seconds = parse_schedule("every 1s", ZoneInfo("UTC"), now=NOW).anchored(NOW)
    years = timedelta(days=3653)
    wanted = Owed.of([Period(NOW, None, seconds)], since=NOW, until=NOW + years)
    count = int(years.total_seconds())
    entry = Entry(1, NOW + timedelta(seconds=1), NOW + years, count, RunState.MISSED, "window")

    assert list(judged(wanted, [entry])) == []
    (fault,) = judged(wanted, [Entry(1, entry.first, entry.last, count - 1, entry.state, entry.reason)])
    assert fault.kind is Kind.MISCOUNTED


@given(st.data())
def test_any_cut_into_rows_is_right_and_any_one_row_less_or_more_is_wrong(data: st.DataObject) -> None:
    """Whatever the rows are: each instant in one of them, or else a fault."""
    ends = sorted(data.draw(st.sets(st.integers(1, 9))) | {10})
    rows = [
        row(end, first=begin + 1, count=end - begin, reason="held")
        for begin, end in zip([0, *ends], ends, strict=False)
    ]
    gone = data.draw(st.integers(0, len(rows) - 1))

    assert found(*rows) == []
    assert found(*rows[:gone], *rows[gone + 1 :]) == [
        (Kind.LOST, (rows[gone].first - NOW) // MINUTE, (rows[gone].last - NOW) // MINUTE, rows[gone].count)
    ]
    assert [kind for kind, *_ in found(*rows, row(data.draw(st.integers(1, 10))))] == [Kind.TWICE]
