"""Log lines: in the journal by fields, as JSON, in words on a terminal; never with a secret in them."""

import gc
import io
import json
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from support.hang_guard import LONGEST
from support.hostile import said
from support.http_peer import HttpPeer, answer
from support.logbook import journal, logbook, restored

from jobs.credential import SecretReference
from jobs.delivery.outgoing import Outgoing
from jobs.errors import ErrorClass
from jobs.events import CredentialMarked, RunFinished, WriteFailed
from jobs.run import ClaimedRun, Outcome, Reason, Trigger
from jobs.secret import Redactor, Secret
from scheduler import logs
from scheduler.config.settings import LogFormat

SECRET = "planted/secret+of=the~house"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = ClaimedRun(7, "digest", NOW, Trigger.SCHEDULE, tries=1)
LEVELS = ("debug", "info", "warning", "error", "critical")
FORMS = (LogFormat.JSON, LogFormat.CONSOLE, LogFormat.JOURNAL)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Telling:
    """An object whose words are a secret."""

    def __repr__(self) -> str:
        return f"<Telling {SECRET}>"


class Broken:
    """An object that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError(SECRET)

    __repr__ = __str__


@pytest.fixture
def redactor() -> Redactor:
    redactor = Redactor()
    redactor.learn([Secret(SECRET)])
    return redactor


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    with restored():
        yield


def raised() -> Exception:
    """Return an error whose cause has a secret in its words."""
    try:
        try:
            raise ValueError(f"bad key {SECRET}")
        except ValueError as exc:
            raise RuntimeError("asking failed") from exc
    except RuntimeError as exc:
        return exc


def places(say: Callable[..., None], speak: Callable[..., None]) -> None:
    """Put the secret everywhere: `say` is the standard library's, `speak` is structlog's."""
    say("the key %s is bad", SECRET)
    say(f"https://host/?key={quote(SECRET, safe='')}")
    say("an error: %s", raised().__cause__)
    say("with a traceback", exc_info=raised())
    say("with a stack", stack_info=True)
    say("%s and %r", Telling(), [Telling()])
    say("%d", SECRET)  # a line that cannot be made
    say("%s", Broken())
    speak("a field", key=SECRET, of={"deep": [{"deeper": (SECRET,)}]}, these={SECRET})
    speak("a name", **{SECRET: 1}, nested={SECRET: {f"x{SECRET}y": SECRET}})
    speak("bytes", body=SECRET.encode(), more=bytearray(SECRET, "utf-8"), view=memoryview(SECRET.encode()))
    speak("an object", it=Telling(), error=raised().__cause__, they=[Telling()], broken=Broken())
    speak("deep", of=[[[[[[[[[[[{"at": SECRET}]]]]]]]]]]])
    speak(SECRET, exc_info=raised())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("level", LEVELS)
def test_no_secret_passes_at_any_level_in_any_form(
    tmp_path: Path, redactor: Redactor, form: LogFormat, level: str
) -> None:
    out = io.StringIO()
    with journal(tmp_path) as sent:
        logs.configure(level, form, redactor, stream=out, journal=sent.path)
        places(getattr(logging.getLogger("jobs.x"), level), getattr(structlog.get_logger("promptd"), level))
        written = out.getvalue() + "\n".join(map(str, sent.entries()))

    assert written.count("[secret]") >= 20
    assert "a log line of jobs.x (test_logs.py:" in written
    for spelt in (SECRET, quote(SECRET, safe=""), SECRET[:14], SECRET[-14:]):
        assert spelt not in written


def test_what_is_said_beside_logging_goes_through_the_filter_too(redactor: Redactor) -> None:
    class Dying:
        def __del__(self) -> None:
            raise RuntimeError(SECRET)

    def die() -> None:
        raise RuntimeError(SECRET)

    out = io.StringIO()
    logs.configure("info", LogFormat.JSON, redactor, stream=out)
    thread = threading.Thread(target=die, name="reader")
    thread.start()
    thread.join()
    Dying()
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"old: {SECRET}", DeprecationWarning, stacklevel=1)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]

    assert SECRET not in out.getvalue()
    assert [line["logger"] for line in lines] == ["promptd", "promptd", "py.warnings"]
    assert lines[0]["event"] == "the thread reader has died"
    assert "Dying.__del__" in lines[1]["event"]


def test_a_value_without_an_end_is_cut(redactor: Redactor) -> None:
    out = io.StringIO()
    logs.configure("info", LogFormat.JSON, redactor, stream=out)

    structlog.get_logger("promptd").info("large", body="x" * 1_000_000 + SECRET)

    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["body"].endswith("x… (cut)")
    assert len(line) < 70_000


def test_an_event_is_an_entry_with_fields_that_can_be_searched_for(
    tmp_path: Path, redactor: Redactor
) -> None:
    with journal(tmp_path) as sent:
        logs.configure("info", LogFormat.JOURNAL, redactor, stream=io.StringIO(), journal=sent.path)
        logs.hear(RunFinished(RUN, Outcome.failed(ErrorClass.AUTH, "no key, see `auth list`"), 1.5))
        logs.hear(
            CredentialMarked("zai", "main", "credential", ErrorClass.RATE_LIMIT, "1302", NOW, attempt_id=3)
        )
        finished, marked = sent.entries()

    message = finished.pop("MESSAGE")
    assert finished == {
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "promptd",
        "LOGGER": "promptd",
        "PROMPTD_JOB": "digest",
        "PROMPTD_RUN_ID": "7",
        "PROMPTD_STATE": "failed",
        "PROMPTD_REASON": "auth",
        "PROMPTD_EVENT": "RunFinished",
    }
    assert message.startswith("run finished job=digest run_id=7 try=1 ")
    assert 'message="no key, see `auth list`"' in message
    assert (marked["PROMPTD_EVENT"], marked["PROMPTD_PROVIDER"]) == ("CredentialMarked", "zai")
    assert (marked["PROMPTD_CREDENTIAL"], marked["PROMPTD_ATTEMPT"]) == ("main", "3")


@pytest.mark.parametrize(
    ("level", "priority"),
    [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")],
)
def test_a_level_is_a_priority_of_syslog(
    tmp_path: Path, redactor: Redactor, level: str, priority: str
) -> None:
    with journal(tmp_path) as sent:
        logs.configure("debug", LogFormat.JOURNAL, redactor, stream=io.StringIO(), journal=sent.path)
        getattr(logging.getLogger("jobs.x"), level)("hello")
        (entry,) = sent.entries()

    assert entry == {
        "MESSAGE": "hello",
        "PRIORITY": priority,
        "SYSLOG_IDENTIFIER": "promptd",
        "LOGGER": "jobs.x",
    }


def test_a_traceback_is_one_entry_of_several_lines(tmp_path: Path, redactor: Redactor) -> None:
    with journal(tmp_path) as sent:
        logs.configure("info", LogFormat.JOURNAL, redactor, stream=io.StringIO(), journal=sent.path)
        logging.getLogger("jobs.x").error("it failed", exc_info=raised())
        (entry,) = sent.entries()

    first, *more = entry["MESSAGE"].splitlines()
    assert first == "it failed"
    assert more[-1] == "RuntimeError: asking failed"
    assert "ValueError: bad key [secret]" in more


def test_an_entry_that_is_too_large_for_a_datagram_arrives_whole(tmp_path: Path, redactor: Redactor) -> None:
    with journal(tmp_path) as sent:
        logs.configure("info", LogFormat.JOURNAL, redactor, stream=io.StringIO(), journal=sent.path)
        fields = {f"part_{number}": f"{number}" * 60_000 for number in range(8)}
        structlog.get_logger("promptd").info("large", **fields)
        (entry,) = sent.entries()

    assert len(entry["MESSAGE"]) > 8 * 60_000
    assert entry["MESSAGE"].endswith("7" * 60_000)


def test_lines_go_to_standard_error_while_the_journal_is_away(tmp_path: Path, redactor: Redactor) -> None:
    out = io.StringIO()
    with journal(tmp_path) as sent:
        logs.configure("info", LogFormat.JOURNAL, redactor, stream=out, journal=sent.path)
        logger = logging.getLogger("jobs.x")
        logger.info("first")
        assert [entry["MESSAGE"] for entry in sent.entries()] == ["first"]
        sent.go_away()
        logger.info("second %s", SECRET)
    with journal(tmp_path) as again:
        logger.info("third")
        assert [entry["MESSAGE"] for entry in again.entries()] == ["third"]

    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["event"] == "second [secret]"


def test_a_journal_that_takes_nothing_more_holds_nobody_up(tmp_path: Path, redactor: Redactor) -> None:
    """Neither its full queue nor a full pipe behind it; what was lost is told when there is room."""

    def say_a_lot() -> None:
        for number in range(2_000):
            logging.getLogger("jobs.x").info("line %d %s", number, "x" * 300)

    reader, writer = os.pipe()
    with journal(tmp_path) as sent, os.fdopen(writer, "w") as out:
        logs.configure("info", LogFormat.JOURNAL, redactor, stream=out, journal=sent.path)
        saying = threading.Thread(target=say_a_lot, daemon=True)
        saying.start()
        saying.join(LONGEST)
        assert not saying.is_alive()
        kept = len(sent.entries())
        sent.go_away()
        piped = os.read(reader, 1 << 20).decode().splitlines()
        logging.getLogger("jobs.x").info("the last")
        told, last = (json.loads(line)["event"] for line in os.read(reader, 1 << 20).decode().splitlines())
    os.close(reader)

    lost = 2_000 - kept - len(piped)
    assert 0 < kept < 2_000
    assert lost > 0
    assert told == f"{lost} log lines were lost: neither the journal nor standard error took them"
    assert last == "the last"


def test_standard_error_may_be_closed(tmp_path: Path, redactor: Redactor) -> None:
    out = (tmp_path / "log").open("w")
    logs.configure("info", LogFormat.JOURNAL, redactor, stream=out, journal=tmp_path / "none")
    out.close()

    logging.getLogger("jobs.x").info("nobody hears this")


@pytest.mark.parametrize("joined", [True, False])
def test_auto_means_the_journal_only_where_standard_error_is_joined_to_it(
    tmp_path: Path, redactor: Redactor, joined: bool
) -> None:
    with journal(tmp_path) as sent, (tmp_path / "log").open("w+") as out:
        status = os.fstat(out.fileno())
        inode = status.st_ino if joined else status.st_ino + 1
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{inode}"}
        logs.configure("info", LogFormat.AUTO, redactor, stream=out, environ=environ, journal=sent.path)
        logging.getLogger("jobs.x").info("hello")
        entries = len(sent.entries())
        out.seek(0)
        lines = len(out.readlines())

    assert (entries, lines) == ((1, 0) if joined else (0, 1))


@pytest.mark.parametrize(
    ("environ", "color", "colored"),
    [
        ({}, None, True),
        ({"NO_COLOR": ""}, None, True),
        ({"NO_COLOR": "1"}, None, False),
        ({}, False, False),
    ],
)
@pytest.mark.parametrize("form", [LogFormat.AUTO, LogFormat.CONSOLE])
def test_a_terminal_is_given_words_in_colour_unless_somebody_minds(
    redactor: Redactor, form: LogFormat, environ: dict[str, str], color: bool | None, colored: bool
) -> None:
    out = Terminal()
    logs.configure("info", form, redactor, stream=out, environ=environ, color=color)

    logs.hear(RunFinished(RUN, Outcome.cancelled(Reason.OPERATOR), 1.0))

    assert "run finished" in out.getvalue()
    assert ("\x1b[" in out.getvalue()) is colored


def test_nothing_that_others_say_acts_on_a_terminal(redactor: Redactor) -> None:
    """What a provider answers stands in a line of its own field, a library's words in the line itself."""
    out = Terminal()
    logs.configure("info", LogFormat.AUTO, redactor, stream=out, environ={}, color=False)

    logs.hear(RunFinished(RUN, Outcome.failed(Reason.TEMPLATE, "A\x1b]0;pwn\x07\x9b2J\u202e"), 1.0))
    logging.getLogger("promptd").warning("it says %s", "\x1b[2J")

    assert "A�]0;pwn��2J�" in out.getvalue()
    assert "it says �[2J" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_elsewhere_lines_are_json(redactor: Redactor) -> None:
    out = io.StringIO()
    logs.configure("info", LogFormat.AUTO, redactor, stream=out, environ={})

    kept = SecretReference("file", "/run/secrets/ping")
    logs.hear(RunFinished(RUN, Outcome.cancelled(Reason.OPERATOR), 1.0, kept))

    line: dict[str, Any] = json.loads(out.getvalue())
    assert (line["event"], line["level"], line["run_id"]) == ("run finished", "info", 7)
    assert "ping" not in out.getvalue()


@pytest.mark.anyio
async def test_what_a_server_answers_is_in_no_log_at_any_level(redactor: Redactor) -> None:
    outgoing = Outgoing(redactor)
    with logbook(redactor, level="debug") as book:
        async with HttpPeer(said(answer(200, "set-cookie: session=of-a-stranger"))) as peer:
            await outgoing.ask("GET", Secret(peer.url("/in")), timeout=timedelta(seconds=LONGEST))
        await outgoing.close()

    assert peer.connections == 1
    assert "of-a-stranger" not in str(book.lines())


def test_a_write_that_the_database_refused_is_a_warning(redactor: Redactor) -> None:
    with logbook(redactor, level="warning") as book:
        logs.hear(WriteFailed("full", "disk is full"))

    assert book.line("write failed")["kind"] == "full"
