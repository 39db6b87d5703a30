"""The words and columns of the command line, and the table of its commands."""

import io
import json
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from jobs.attempt import AttemptOutcome, Purpose, Step
from jobs.credential import Strategy
from jobs.errors import ErrorClass
from jobs.mark import Scope, Status
from jobs.run import RunState, Trigger
from jobs.text import readable
from scheduler.cli import COMMANDS, words
from scheduler.cli.job_next import clock_change
from scheduler.cli.lazy import Entry
from scheduler.cli.provider_check import Proof
from scheduler.cli.tables import Facts, Table, View, print_text, put, show, to_json
from scheduler.triggers import CronSchedule, parse_schedule

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.25, "0.25 s"),
        (9.999, "10 s"),
        (59.6, "1 min"),
        (1306, "21 min 46 s"),
        (3600, "1 h"),
        (90061, "1 d 1 h"),
        (3605, "1 h"),
        (-5, "0 s"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    """Nobody reads seconds of a day."""
    assert words.length(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("default", "the default time"),
        ("retry-after", "from the retry-after header"),
        ("text", "from the words of the answer"),
        ("resets_at", "from resets_at in the answer"),
        ("metadata.headers.x-ratelimit-reset", "from metadata.headers.x-ratelimit-reset in the answer"),
    ],
)
def test_the_source_of_a_time_is_said(source: str, said: str) -> None:
    """A header is told from a field of the body."""
    assert words.source(source) == said


def test_times_leave_in_utc_with_z() -> None:
    """Whatever zone they came in."""
    moment = datetime(2026, 5, 1, 14, 0, tzinfo=BERLIN)
    assert words.instant(moment) == "2026-05-01T12:00:00Z"
    assert json.loads(to_json([datetime(2026, 5, 1, tzinfo=UTC), timedelta(minutes=1)])) == [
        "2026-05-01T00:00:00Z",
        60.0,
    ]


def test_columns_in_a_pipe_are_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """A cell is one line, an empty one a hyphen."""
    show([Table(("A", "B"), [("x" * 300, "two\nlines"), ("y", None)]), Facts([("name", "n"), ("no", "")])])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "x" * 300 + "  two lines"
    assert lines[2].split() == ["y", "-"]
    assert lines[-1] == "name:  n"


def test_control_characters_do_not_reach_a_terminal() -> None:
    """A provider's message cannot move the cursor, nor turn the direction of what is written."""
    assert readable("a\x1b[2Jb\tc\n\x07\x9b\u202e\u2028\r\n") == "a�[2Jb\tc\n����\n"
    assert (
        readable("prix\xa0: 3\u202f€, 👩\u200d🚀, ﾊﾟ, می\u200cخواهم")
        == "prix\xa0: 3\u202f€, 👩\u200d🚀, ﾊﾟ, می\u200cخواهم"
    )


def test_json_shows_a_terminal_no_control_characters_and_means_the_same() -> None:
    data = {"message": "a\x1b]0;pwn\x07\x9b2J\u202e\ud800 ü 👩"}
    assert "".join(to_json(data).splitlines()).isprintable()
    assert json.loads(to_json(data)) == data
    assert "ü 👩" in to_json(data)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("out", "printed"), [(Terminal(), "ab�2J\n"), (io.StringIO(), "ab\x9b2J\n")])
def test_what_others_have_written_is_changed_for_a_terminal_only(out: io.StringIO, printed: str) -> None:
    with redirect_stdout(out):
        print_text("ab\x9b2J")
    assert out.getvalue() == printed


def test_notes_do_not_act_on_a_terminal_either(capsys: pytest.CaptureFixture[str]) -> None:
    put(View({}, [Table((), (), none="no\x9bne")], notes=["look\x1b[2J"]), as_json=False, color=False)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("no�ne\n", "promptd: look�[2J\n")


@pytest.mark.parametrize(
    ("line", "when", "said"),
    [
        ("30 2 * * *", "2026-03-29T01:00:00+00:00", "clock set forward"),
        ("0 3 * * *", "2026-03-29T01:00:00+00:00", None),
        ("30 2 * * *", "2026-10-25T00:30:00+00:00", "the first of two"),
        ("30 * * * *", "2026-10-25T01:30:00+00:00", "the second of two"),
        ("0 7 * * *", "2026-10-25T06:00:00+00:00", None),
    ],
)
def test_a_clock_change_is_noted_where_it_shaped_an_instant(line: str, when: str, said: str | None) -> None:
    """Berlin springs forward on 29 March 2026 and back on 25 October."""
    schedule = parse_schedule(line, BERLIN, now=datetime(2026, 1, 1, tzinfo=UTC))
    assert isinstance(schedule, CronSchedule)
    note = clock_change(schedule, datetime.fromisoformat(when))
    assert note is None if said is None else said in (note or "")


def _entries(table: object = COMMANDS, path: str = "") -> list[tuple[str, Entry]]:
    assert hasattr(table, "items")
    found = []
    for name, entry in table.items():
        here = f"{path} {name}".strip()
        found += _entries(entry.commands, here) if entry.commands else [(here, entry)]
    return found


@pytest.mark.parametrize(("name", "entry"), _entries())
def test_every_command_of_the_table_is_there(name: str, entry: Entry) -> None:
    """The lazy table names real commands."""
    command = entry.made(name.rsplit(maxsplit=1)[-1])
    assert command.name == name.rsplit(maxsplit=1)[-1]


@pytest.mark.parametrize(
    ("schema", "path", "members"),
    [
        ("run-list", ("items", "properties", "state"), RunState),
        ("run-list", ("items", "properties", "trigger"), Trigger),
        ("attempt", ("properties", "purpose"), Purpose),
        ("attempt", ("properties", "outcome"), AttemptOutcome),
        ("attempt", ("properties", "recovery"), Step),
        ("attempt", ("properties", "error_class"), ErrorClass),
        ("auth-list", ("items", "properties", "status"), Status),
        ("auth-list", ("items", "properties", "scope"), Scope),
        ("explain", ("$defs", "class"), ErrorClass),
        ("explain", ("$defs", "credential", "properties", "scope"), Scope),
        ("provider-check", ("items", "properties", "class"), ErrorClass),
        ("provider-check", ("items", "properties", "result"), Proof),
        ("provider-show", ("properties", "strategy"), Strategy),
    ],
)
def test_the_closed_lists_of_a_schema_are_those_of_the_code(
    schema: str, path: tuple[str, ...], members: type
) -> None:
    """A new member is written into the schemas with it."""
    document = json.loads((SCHEMAS / f"{schema}.json").read_text())
    for step in path:
        document = document[step]
    assert set(document["enum"]) - {None} == {member.value for member in members}  # type: ignore[attr-defined]
