"""The words of what is delivered: subjects, bodies and facts of runs, alerts and tests."""

import json

import pytest
from support.delivering import KEY, NOW, message, run_row

from jobs.alert import AlertKind, Notice
from jobs.delivery.limits import fitted, utf8_size
from jobs.delivery.message import NoticeRow, message_of_alert, message_of_run, message_of_test, one_line


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"title": "Three disks are full", "output": "x"}, "Three disks are full"),
        ({"output": "\n\n## **Overnight** alerts\n\nNone."}, "morning-digest: Overnight alerts"),
        ({"output": "word " * 100}, "morning-digest: " + "word " * 15 + "word…"),
        ({"output": "x" * 100}, "morning-digest: " + "x" * 79 + "…"),
        ({"output": "---\n***"}, "morning-digest"),
        ({"state": "failed", "reason": "auth_dead", "output": None}, "morning-digest failed: auth_dead"),
        ({"state": "timed_out", "reason": "timeout"}, "morning-digest timed out"),
        (
            {"state": "abandoned", "reason": "process_gone"},
            "morning-digest was abandoned: the process that ran it is gone",
        ),
    ],
)
def test_a_subject_says_in_one_line_what_has_happened(changes: dict[str, object], subject: str) -> None:
    assert message_of_run(run_row(**changes), KEY).subject == subject


def test_a_failure_says_why_who_was_asked_and_where_to_look() -> None:
    asked = ("openai/gpt-5: quota_billing", "zai/glm-5.1: auth_dead")
    told = message_of_run(
        run_row(
            state="failed",
            reason="quota_billing",
            error_class="quota_billing",
            error_message="no target answered",
            output=None,
            served_provider=None,
            asked=asked,
        ),
        KEY,
    )

    assert told.body.startswith("no target answered\n")
    assert "Error class: quota_billing\n" in told.body
    assert "  openai/gpt-5: quota_billing\n  zai/glm-5.1: auth_dead\n" in told.body
    assert told.body.endswith("promptd run show 7")
    assert told.facts["error"] == {"class": "quota_billing", "message": "no target answered"}
    assert told.facts["served"] is None
    assert told.what == "run.failed"


@pytest.mark.parametrize(
    "hostile",
    [
        "Hello\r\nBcc: everybody@example.org",
        "Hello\nX: y",
        "Hello\x0b\x1b[2J\x85 \u2028 \x7f",
        "Hello\ud800\0",
        "Hello" * 1000,
    ],
)
def test_a_subject_is_one_printable_line_whoever_wrote_it(hostile: str) -> None:
    row = NoticeRow(3, Notice.OPENED, AlertKind.JOB_FAILING, hostile, hostile, NOW)
    for told in (message(title=hostile), message(hostile), message_of_alert(row, KEY)):
        assert told.subject.isprintable()
        assert len(told.subject) <= 200
        assert told.subject.encode()
        assert told.body.encode()
        assert "\0" not in told.body
        assert json.dumps(dict(told.facts), allow_nan=False).encode()


def test_a_line_is_cut_between_words() -> None:
    assert one_line("word " * 100) == "word " * 39 + "word…"


def test_facts_are_plain_and_a_notice_names_what_it_is_about() -> None:
    row = NoticeRow(
        3,
        Notice.RESOLVED,
        AlertKind.JOB_FAILING,
        "digest works again",
        "It has succeeded.",
        NOW,
        job="digest",
    )
    told = message_of_alert(row, KEY)

    assert (told.key, told.what, told.at, told.whole_text) == (KEY, "alert.resolved", NOW, "")
    assert told.facts["notice"] == "resolved"
    assert told.facts["job"] == "digest"


def test_a_test_says_that_it_is_one() -> None:
    told = message_of_test("ops", KEY, now=NOW)

    assert told.subject == "promptd: test of ops"
    assert "ops" in told.body


@pytest.mark.parametrize("letter", ["a", "ü", "\N{GRINNING FACE}"])
@pytest.mark.parametrize("most", [200, 1_000, 1_001])
def test_a_text_that_is_too_long_is_cut_at_a_character_and_says_how_to_read_it_whole(
    letter: str, most: int
) -> None:
    text, was_cut = fitted(message(letter * 2_000), most)

    assert was_cut
    assert most - 8 <= len(text.encode()) <= most
    assert text.startswith(letter)
    assert text.endswith(
        "\n\n[cut here: the whole text has 2,000 characters; `promptd run output 7` prints it]\n"
    )


def test_a_text_that_fits_stays_as_it_is() -> None:
    assert fitted(message("ü" * 100), 200) == ("ü" * 100, False)
    assert utf8_size("ü") == 2


def test_nothing_is_left_of_a_text_for_which_there_is_no_room() -> None:
    text, was_cut = fitted(message("a" * 100), 5)

    assert (text.strip()[:9], was_cut) == ("[cut here", True)
