"""The names of files that results go to: a few fields, and no way out."""

from datetime import datetime, timedelta, timezone

import pytest
from support.delivering import NOW, message

from jobs.alert import AlertKind, Notice
from jobs.delivery.file_name import checked, file_name
from jobs.delivery.message import NoticeRow, message_of_alert, message_of_test


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("out/{job}/{scheduled_for:%Y-%m-%d}.md", "out/morning-digest/2026-11-21.md"),
        ("{job}-{run_id}-{state}.md", "morning-digest-7-succeeded.md"),
        ("{scheduled_for:%Y/%m}/{run_id}", "2026/11/7"),
        ("{scheduled_for}.md", "2026-11-21T06:00:00+0000.md"),
        ("/srv/{{braces}}/../{run_id}", "/srv/{braces}/../7"),
    ],
)
def test_a_template_is_filled(template: str, name: str) -> None:
    assert file_name(checked(template), message()) == name


def test_a_date_is_that_of_the_jobs_own_time_zone() -> None:
    tokyo = timezone(timedelta(hours=9))
    late = datetime(2026, 11, 21, 23, 30, tzinfo=timezone(timedelta())).astimezone(tokyo)

    assert file_name("{scheduled_for:%Y-%m-%d}", message(scheduled_for=late)) == "2026-11-22"


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        ("", "names no file"),
        ("/", "names no file"),
        ("out/", "names no file"),
        ("out/..", "names no file"),
        ("a\0b", "names no file"),
        ("/dev/null", "where no file stays"),
        ("/srv/..//proc/{job}", "where no file stays"),
        ("//sys/{job}", "where no file stays"),
        ("../{job}", "leads out of its directory"),
        ("out/../../{job}", "leads out of its directory"),
        ("{job", "braces that do not match"),
        ("{}", "a field that nobody fills"),
        ("{0}", "a field that nobody fills"),
        ("{output}", "a field that nobody fills"),
        ("{job.__class__}", "a field that nobody fills"),
        ("{job[0]}", "a field that nobody fills"),
        ("{job!r}", "a field that nobody fills"),
        ("{job:>1000000000}", "says how to write a field"),
        ("{run_id:0100000000d}", "says how to write a field"),
        ("{scheduled_for:{job}}", "says how to write a field"),
        ("{scheduled_for:>1000000000}", "says how to write a field"),
    ],
)
def test_what_cannot_be_a_name_is_refused(template: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        checked(template)


@pytest.mark.parametrize("hostile", ["../../etc/cron.d", "/etc/passwd", "a/b", "..", "nul\0", "{job}"])
def test_the_value_of_a_field_makes_no_directories(hostile: str) -> None:
    name = file_name("out/{job}.md", message(job=hostile))

    assert name == f"out/{hostile.replace('/', '_').replace(chr(0), '_')}.md"


def test_a_job_that_is_called_dots_does_not_lead_out() -> None:
    with pytest.raises(ValueError, match="leads out"):
        file_name("{job}/x.md", message(job=".."))


def test_a_notice_or_a_test_does_not_take_the_place_of_a_jobs_file() -> None:
    """Names of jobs hold no underscore."""
    row = NoticeRow(3, Notice.OPENED, AlertKind.JOB_FAILING, "s", "b", NOW, job="morning-digest", run_id=7)
    template = "{job}/{scheduled_for:%Y-%m-%d}-{run_id}-{state}.md"

    assert file_name(template, message_of_alert(row, "k")) == "_alerts/2026-11-21-3-opened.md"
    assert file_name(template, message_of_test("inbox", "k", now=NOW)) == "_test/2026-11-21-test-test.md"


@pytest.mark.parametrize(
    ("template", "notice", "test"),
    [
        ("latest.md", "_alerts/latest.md", "_test/latest.md"),
        ("out/{run_id}.md", "out/_alerts/3.md", "out/_test/test.md"),
        ("/srv/latest-{{job}}", "/srv/_alerts/latest-{job}", "/srv/_test/latest-{job}"),
    ],
)
def test_a_notice_or_a_test_does_not_take_the_place_of_a_file_that_names_no_job(
    template: str, notice: str, test: str
) -> None:
    row = NoticeRow(3, Notice.OPENED, AlertKind.JOB_FAILING, "s", "b", NOW, job="morning-digest", run_id=7)

    assert file_name(template, message_of_alert(row, "k")) == notice
    assert file_name(template, message_of_test("inbox", "k", now=NOW)) == test
