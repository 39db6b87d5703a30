"""The keys of jobs: what each settles to, in the job or in `defaults`, and how it is explained."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from jobs.definition import Command, OnCrash, Retry
from jobs.errors import ErrorClass, UsageError
from jobs.run import Concurrency
from scheduler.config.effective import effective, job_keys
from scheduler.config.explained import in_effect, matching, named
from scheduler.config.json_schema import json_schema
from scheduler.config.loader import Loaded, load_with_origins
from scheduler.config.meanings import MEANINGS, SECTIONS
from scheduler.config.schema import CustomKeys
from scheduler.config.settings import CatchUp, ScheduledJob
from scheduler.timetable import Timetable
from scheduler.zone_pieces import Fold, Gap

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HEAD = "timezone: Europe/Berlin\nmodel: openai/gpt-5.5\n"
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
OF_TIME = frozenset(
    {ErrorClass.CONNECTION, ErrorClass.TIMEOUT, ErrorClass.SERVER_ERROR, ErrorClass.OVERLOADED}
)


def loaded(tmp_path: Path, text: str) -> Loaded:
    """Load a file with these jobs and sections."""
    file = tmp_path / "promptd.yaml"
    file.write_text(HEAD + text)
    return load_with_origins(file, environ={"HOME": str(tmp_path)}, now=NOW)


def job(tmp_path: Path, keys: str, defaults: str = "", schedule: str = "'@daily'") -> ScheduledJob:
    """Return one job with these keys besides name, schedule and prompt."""
    written = f"{defaults}jobs:\n  - name: a\n    schedule: {schedule}\n    prompt: hi\n    {keys}\n"
    return loaded(tmp_path, written + "  - {name: b, schedule: null, prompt: hi}\n").settings.jobs["a"]


def test_everything_that_says_when_is_one_timetable(tmp_path: Path) -> None:
    made = job(
        tmp_path,
        "dst: {gap: skip, fold: both}\n    start: 2026-08-01T00:00\n    end: '2026-12-01T00:00:00Z'\n"
        "    max_runs: 5\n    jitter: 5m\n    catch_up: all",
        schedule="['0 7 * * mon-fri', every 90m]",
    )

    assert made.timetable == Timetable(
        ("0 7 * * mon-fri", "every 90m"),
        "Europe/Berlin",
        Gap.SKIP,
        Fold.BOTH,
        datetime(2026, 7, 31, 22, tzinfo=UTC),
        datetime(2026, 12, 1, tzinfo=UTC),
        5,
    )
    assert made.schedule is not None
    assert made.schedule.after(NOW) == datetime(2026, 7, 31, 22, tzinfo=UTC)
    assert (made.jitter, made.max_runs, made.catch_up) == (5 * MINUTE, 5, CatchUp.ALL)


def test_a_start_without_an_offset_is_local_time_of_the_jobs_own_zone(tmp_path: Path) -> None:
    made = job(tmp_path, "timezone: Asia/Tokyo", "defaults: {start: '2026-08-01 09:00'}\n")

    assert made.timetable is not None
    assert made.timetable.start == datetime(2026, 8, 1, tzinfo=UTC)


def test_jobs_with_the_same_timetable_share_one_schedule(tmp_path: Path) -> None:
    text = "".join(f"  - {{name: j{n}, schedule: '0 7 * * *', prompt: hi}}\n" for n in range(3))
    made = loaded(tmp_path, f"jobs:\n{text}").settings.jobs.values()

    assert len({id(each.schedule) for each in made}) == 1


def test_the_keys_of_a_run_arrive_in_its_job(tmp_path: Path) -> None:
    made = job(
        tmp_path,
        "concurrency: replace\n    on_crash: rerun\n    condition: [test, -s, log]\n    after: [b]\n"
        "    retry: {max: 4, delays: [10s], on: [auth]}\n    max_tokens_per_day: 9000\n"
        "    silent_when: output == last_output\n    pause_after_failures: 3",
    ).job

    assert (made.concurrency, made.on_crash, made.after) == (Concurrency.REPLACE, OnCrash.RERUN, ("b",))
    assert made.condition == Command(("test", "-s", "log"))
    assert made.retry == Retry(4, (10 * SECOND,), frozenset({ErrorClass.AUTH}))
    assert (made.max_tokens_per_day, made.pause_after_failures) == (9000, 3)
    assert made.silent_when == "output == last_output"


def test_without_a_word_none_of_them_does_anything(tmp_path: Path) -> None:
    made = job(tmp_path, "tags: []")
    what = made.job

    assert (made.jitter, made.max_runs, what.after, what.retry) == (None, None, (), None)
    assert (what.concurrency, what.on_crash) == (Concurrency.FORBID, OnCrash.ABANDON)
    assert (what.condition, what.silent_when, what.max_tokens_per_day) == (None, None, None)
    assert what.pause_after_failures is None


@pytest.mark.parametrize(
    ("written", "retry"),
    [
        ("{}", Retry(2, (MINUTE, 5 * MINUTE), OF_TIME)),
        ("{max: 1}", Retry(1, (MINUTE, 5 * MINUTE), OF_TIME)),
        ("{delays: [2m], on: [auth]}", Retry(2, (2 * MINUTE,), frozenset({ErrorClass.AUTH}))),
        ("{max: 0}", None),
    ],
)
def test_what_retry_leaves_out_is_the_default(tmp_path: Path, written: str, retry: Retry | None) -> None:
    assert job(tmp_path, f"retry: {written}").job.retry == retry


def test_a_job_takes_back_what_defaults_say(tmp_path: Path) -> None:
    defaults = "defaults: {retry: {}, pause_after_failures: 2, concurrency: allow, after: [b]}\n"

    made = loaded(
        tmp_path,
        f"{defaults}jobs:\n"
        "  - {name: b, schedule: null, prompt: hi, after: []}\n"
        "  - {name: a, schedule: null, prompt: hi, retry: {max: 0}, pause_after_failures: off,\n"
        "     concurrency: forbid, after: []}\n"
        "  - {name: c, schedule: null, prompt: hi}\n",
    ).settings.jobs["a"]

    assert (made.job.retry, made.job.pause_after_failures, made.job.after) == (None, None, ())
    assert made.job.concurrency is Concurrency.FORBID


def test_files_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "jobs.d").mkdir()
    (tmp_path / "jobs.d" / "own.md").write_text("own")
    (tmp_path / "all.md").write_text("all {{ job }}")
    (tmp_path / "jobs.d" / "a.yaml").write_text(
        "- {name: a, schedule: null, prompt_file: own.md}\n- {name: b, schedule: null}\n"
        "- {name: c, schedule: null, prompt: hi, system: terse}\n"
    )

    made = loaded(tmp_path, "defaults: {prompt_file: all.md, system_file: ./all.md}\n").settings.jobs

    files = {name: (each.job.prompt_file, each.job.system_file) for name, each in made.items()}
    own, everybodys = tmp_path / "jobs.d" / "own.md", tmp_path / "all.md"
    assert files == {"a": (own, everybodys), "b": (everybodys, everybodys), "c": (None, None)}
    assert [each.job.prompt for each in made.values()] == ["", "", "hi"]


def test_how_much_is_kept_is_a_limit(tmp_path: Path) -> None:
    limits = loaded(tmp_path, "limits: {keep_runs: 5, keep_days: 30}\n").settings.limits

    assert (limits.keep_runs, limits.keep_days) == (5, 30)


def test_every_key_is_shown_with_the_place_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("hi")
    made = loaded(
        tmp_path,
        "defaults: {jitter: 5m, retry: {max: 1}}\njobs:\n"
        "  - {name: a, schedule: [every 1h, '@daily'], prompt_file: p.md, start: 2026-08-01T00:00}\n",
    )
    shown = job_keys(made, "a")

    file = tmp_path / "promptd.yaml"
    assert shown["jitter"] == {"value": 300.0, "from": f"{file}:3"}
    assert shown["retry"]["value"] == {"max": 1, "delays": [60.0, 300.0], "on": sorted(OF_TIME)}
    assert shown["schedule"] == {"value": ["every 1h", "@daily"], "from": f"{file}:5"}
    assert shown["start"]["value"] == "2026-07-31T22:00:00Z"
    assert shown["prompt_file"] == {"value": str(tmp_path / "p.md"), "from": f"{file}:5"}
    assert shown["dst"] == {"value": {"gap": "run_after", "fold": "first"}, "from": "default"}
    assert effective(made)["jobs"]["a"] == shown


def test_every_key_that_can_be_written_is_explained() -> None:
    """But those of single providers and of inline targets."""
    known = {
        f"{section}.{field}".removeprefix(".")
        for section, model in SECTIONS.items()
        for field in model.model_fields
        if not (section == "auxiliary" and field in CustomKeys.model_fields)
    }

    assert set(MEANINGS) == known
    assert all(meaning.text for meaning in MEANINGS.values())


def test_a_key_is_explained_by_its_path_or_its_last_word() -> None:
    assert [each.key for each in matching("limits.keep_runs")] == ["limits.keep_runs"]
    assert [each.key for each in matching("retry.max")] == ["jobs.retry.max"]
    assert [each.key for each in matching("model")] == ["model", "jobs.model", "auxiliary.model"]
    assert [each.key for each in matching("jobs.digest.catch_up")] == ["jobs.catch_up"]
    assert [each.key for each in matching("defaults.timeout")] == ["jobs.timeout"]
    (catch_up,) = matching("catch_up")
    assert (catch_up.type, catch_up.default) == ("one of latest, all, none", "latest")
    with pytest.raises(UsageError, match="did you mean jitter"):
        matching("jiter")


def test_a_key_is_explained_with_its_values_in_effect(tmp_path: Path) -> None:
    made = effective(
        loaded(
            tmp_path,
            "defaults: {timeout: 3m}\nlimits: {keep_days: 9}\njobs:\n"
            "  - {name: a, schedule: null, prompt: x, timeout: 1m, dst: {gap: skip}}\n"
            "  - {name: b, schedule: '@daily', prompt: x, dst: {gap: skip}}\n",
        )
    )

    file = tmp_path / "promptd.yaml"
    found = [(v.at, v.value, v.origin) for v in in_effect("jobs.timeout", made)]
    assert found == [("jobs.a.timeout", 60.0, f"{file}:6"), ("jobs.b.timeout", 180.0, f"{file}:3")]
    assert [v.at for v in in_effect("jobs.timeout", made, only=named("jobs.b.timeout"))] == ["jobs.b.timeout"]
    assert [v.value for v in in_effect("jobs.dst.gap", made)] == [None, "skip"]
    assert [(v.value, v.origin) for v in in_effect("limits.keep_days", made)] == [(9, f"{file}:4")]


def test_the_schema_takes_what_the_specification_shows() -> None:
    checked = Draft202012Validator(json_schema())
    whole = {
        "name": "a",
        "schedule": ["0 7 * * *", "every 90s"],
        "prompt_file": "p.md",
        "dst": {"gap": "skip"},
        "start": "2026-08-01T00:00",
        "retry": {"max": 2, "delays": ["1m", "5m"], "on": ["timeout"]},
        "condition": ["test", "-f", "x"],
        "gather": {"shell": True, "command": "date"},
        "pause_after_failures": 3,
        "jitter": "5m",
    }

    assert list(checked.iter_errors({"jobs": [whole]})) == []
    assert list(checked.iter_errors({"jobs": [{**whole, "jitter": 5}]})) != []
    assert list(checked.iter_errors({"jobs": [{**whole, "concurrency": "sometimes"}]})) != []


def test_what_a_job_keeps_does_not_hold_on_to_the_memory_of_its_file(tmp_path: Path) -> None:
    """A text among the nodes of a file would keep their memory: 25 MB with 10,000 jobs."""
    made = loaded(
        tmp_path, "jobs: [{name: digest, schedule: '0 7 * * *', prompt: say it, system: be brief}]\n"
    )
    kept, read = made.settings.jobs["digest"], made.document.data["jobs"][0]

    texts = (
        kept.job.name,
        kept.job.prompt,
        kept.job.system,
        *(kept.timetable.lines if kept.timetable else ()),
    )
    assert texts == (read["name"], read["prompt"], read["system"], read["schedule"])
    assert {id(text) for text in texts} & {id(value) for value in read.values()} == set()
