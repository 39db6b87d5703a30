"""`job pause`, `run cancel`, `reload` and `stop`: with a daemon, and without one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import select
from support.claiming import claim
from support.controlled import NOTHING_CHANGED, Verbs, listening
from support.ledger import NOW
from support.workplace import eventually
from test_cli_ground import CONFIG, World

from jobs.run import Bounds, ClaimedRun, Outcome, Reason, Trigger
from jobs.store import instances, runs
from jobs.store import jobs as job_verbs
from jobs.store.claims import NewRun
from jobs.store.tables import runs as run_table
from jobs.store.tables import schedule_periods
from scheduler.cli.context import Context
from scheduler.cli.job_run import tell
from scheduler.cli.remote import state_dir_of
from scheduler.config.loader import load
from scheduler.one_shot import Ended


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def verbs(tmp_path: Path) -> Verbs:
    return Verbs(tmp_path / "promptd.yaml")


def queued(world: World) -> int:
    with world.ledger() as connection:
        instance = instances.register(connection, kind="command", version="1", now=world.now)
        return runs.add(
            connection, job="tick", trigger=Trigger.MANUAL, instance_id=instance, now=world.now
        ).id


def begun(world: World) -> ClaimedRun:
    with world.ledger() as connection:
        instance = instances.register(connection, kind="command", version="1", now=world.now)
        run = runs.add(connection, job="digest", trigger=Trigger.MANUAL, instance_id=instance, now=world.now)
        primary = world.target(0)
        return runs.start(connection, run, primary=primary, instance_id=instance, now=world.now)


@contextmanager
def owner_of(world: World, run: ClaimedRun, *, hears: Callable[[], bool]) -> Iterator[None]:
    """End a run as its owner does, once he hears that it is to end."""

    def end() -> None:
        eventually(hears)
        with world.ledger() as connection:
            runs.finish(connection, run, Outcome.cancelled(Reason.OPERATOR), now=world.now)

    owner = threading.Thread(target=end)
    owner.start()
    yield
    owner.join()


def asked_to_end(world: World, run_id: int) -> bool:
    with world.ledger() as connection:
        row = connection.execute(select(run_table.c.cancel_requested).where(run_table.c.id == run_id)).one()
        return row.cancel_requested is not None


def test_a_paused_job_stays_paused_with_its_reason_until_it_is_resumed(world: World) -> None:
    paused = world.json("job-pause", "job", "pause", "tick", "digest", "--reason", "the bill")
    again = world.run("job", "pause", "tick", "--reason", "another")
    shown = {job["name"]: job for job in world.json("job-list", "job", "list")}
    resumed = world.json("job-pause", "job", "resume", "tick")
    idle = world.run("job", "resume", "tick")
    assert paused == [
        {"name": "tick", "paused": True, "changed": True},
        {"name": "digest", "paused": True, "changed": True},
    ]
    assert (again.code, again.out) == (0, "tick is paused already\n")
    assert (shown["tick"]["paused"], shown["tick"]["pause_reason"]) == (True, "the bill")
    assert shown["tick"]["next_run_at"] is None
    assert resumed == [{"name": "tick", "paused": False, "changed": True}]
    assert (idle.code, idle.out) == (0, "tick is not paused\n")


def test_every_pause_is_kept_with_its_time(world: World) -> None:
    world.run("job", "pause", "tick")
    world.run("job", "resume", "tick")
    with world.ledger() as connection:
        rows = connection.execute(
            select(schedule_periods).where(schedule_periods.c.job == "tick").order_by(schedule_periods.c.id)
        ).all()
    assert [(row.paused, row.until is None) for row in rows] == [(False, False), (True, False), (False, True)]
    assert all(earlier.until == later.since for earlier, later in pairwise(rows))


def test_one_unknown_name_changes_nothing(world: World) -> None:
    refused = world.run("job", "pause", "tick", "tock")
    assert refused.code == 2
    assert "tock" in refused.err
    assert not any(job["paused"] for job in world.json("job-list", "job", "list"))


def test_a_job_can_be_paused_before_there_is_a_database(tmp_path: Path) -> None:
    fresh = World(tmp_path, migrated=False)
    assert fresh.run("job", "pause", "tick").out == "tick is paused\n"


def test_the_daemon_looks_at_a_paused_job_now(tmp_path: Path, world: World, verbs: Verbs) -> None:
    with listening(tmp_path / "state", verbs, environ={}):
        world.run("job", "pause", "tick", "digest")
        world.run("job", "resume", "tick")
    assert verbs.asked == [("wake", "tick", "digest"), ("wake", "tick")]


def test_a_run_that_waits_is_cancelled_at_once(world: World) -> None:
    run_id = queued(world)
    cancelled = world.json("run-cancel", "run", "cancel", str(run_id))
    again = world.run("run", "cancel", str(run_id))
    assert cancelled == {"id": run_id, "job": "tick", "state": "cancelled", "cancelled": True}
    assert (again.code, again.out) == (1, f"run {run_id} of tick had ended already: cancelled\n")
    assert world.json("run-show", "run", "show", str(run_id))["reason"] == "operator"


def test_a_run_that_is_at_work_is_ended_by_its_process(world: World) -> None:
    run = begun(world)
    with owner_of(world, run, hears=lambda: asked_to_end(world, run.id)):
        said = world.run("run", "cancel", str(run.id))
    assert (said.code, said.out) == (0, f"run {run.id} of digest is cancelled\n")


def test_a_daemon_is_asked_for_the_end_of_its_own_run(tmp_path: Path, world: World, verbs: Verbs) -> None:
    run = begun(world)
    verbs.mine = (run.id,)
    with (
        listening(tmp_path / "state", verbs, environ={}),
        owner_of(world, run, hears=lambda: ("cancel", run.id) in verbs.asked),
    ):
        said = world.run("run", "cancel", str(run.id))
    assert said.code == 0
    assert not asked_to_end(world, run.id)


def test_a_run_that_is_not_there_cannot_be_cancelled(world: World) -> None:
    assert world.run("run", "cancel", "77").code == 2


def test_retry_says_why_a_run_cannot_be_repeated(world: World) -> None:
    run = begun(world)
    assert world.run("run", "retry", str(run.id)).code == 2
    assert world.run("run", "retry", "77").code == 2


def test_a_run_can_be_repeated_by_the_daemon(tmp_path: Path, world: World, verbs: Verbs) -> None:
    run_id = queued(world)
    world.run("run", "cancel", str(run_id))
    with listening(tmp_path / "state", verbs, environ={}):
        said = world.run("run", "retry", str(run_id), "--detach")
    assert (said.code, said.out) == (0, "7\n")
    assert verbs.asked == [("run", "tick", {}, run_id, False)]


def test_a_reload_says_what_it_changed(tmp_path: Path, world: World, verbs: Verbs) -> None:
    verbs.reloads = {**NOTHING_CHANGED, "added": ["a", "b"], "waits_for_restart": ["database"]}
    with listening(tmp_path / "state", verbs, environ={}):
        said = world.run("reload")
        assert world.json("reload", "reload") == verbs.reloads
        verbs.reloads = NOTHING_CHANGED
        assert world.run("reload").out == "nothing has changed\n"
    assert said.out.split() == ["added:", "a,", "b", "waits", "for", "a", "restart:", "database"]


@pytest.mark.parametrize("raised", [False, True])
def test_a_reload_of_a_faulty_configuration_is_exit_78_with_every_line(
    tmp_path: Path, world: World, verbs: Verbs, raised: bool
) -> None:
    faults = ["raised"] if raised else ["promptd.yaml:3:1: jobs: is wrong; mend it", "promptd.yaml:4: x"]
    verbs.reloads = {**NOTHING_CHANGED, "ok": False, "faults": faults}
    with listening(tmp_path / "state", verbs, environ={}):
        said = world.run("reload")
    assert said.code == 78
    assert "promptd.yaml:3:1: jobs: is wrong; mend it" in said.err
    assert len(said.err.splitlines()) == (1 if raised else 2)


@pytest.mark.parametrize("words", [("reload",), ("stop",), ("run", "retry", "1", "--detach")])
def test_what_needs_a_daemon_is_exit_69_without_one(world: World, words: tuple[str, ...]) -> None:
    world.run("run", "cancel", str(queued(world)))
    said = world.run(*words)
    assert said.code == 69
    assert "promptd start" in said.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_names_the_program(world: World, shell: str) -> None:
    said = world.run("completion", shell)
    assert said.code == 0
    assert "_PROMPTD_COMPLETE" in said.out


@pytest.mark.parametrize(
    "line",
    [
        "state_dir: state",
        "state_dir: ./a/../b/  # a comment",
        'state_dir: "with space"',
        "'state_dir': single",
        "state_dir: ~/mine",
        "state_dir:    /var/lib/there\r",
        "state_dir:\n  below",
        "timezone: UTC  # state_dir: elsewhere",
        "defaults:\n  description: |\n    state_dir: not-this",
        "",
    ],
)
def test_the_callers_side_finds_the_state_directory_that_the_configuration_means(
    tmp_path: Path, line: str
) -> None:
    config = tmp_path / "promptd.yaml"
    config.write_text(f"{line}\nmodel: openai/gpt-5.5\n")
    environ = {"HOME": str(tmp_path / "home"), "XDG_STATE_HOME": "/xdg"}
    meant = load(config, environ=environ, now=datetime.now(UTC)).state_dir
    assert state_dir_of(config, environ) == meant


def test_a_daemon_is_found_whose_state_directory_was_edited_since(
    tmp_path: Path, world: World, verbs: Verbs
) -> None:
    with listening(tmp_path / "state", verbs, environ={}):
        world.file.write_text(world.file.read_text().replace("state_dir: state", "state_dir: moved"))
        assert world.run("reload").out == "nothing has changed\n"
        verbs.config = tmp_path / "another.yaml"
        alone = world.run("reload")
    assert alone.code == 69
    assert f"{tmp_path}/moved/control.sock" in alone.err
    assert "another state_dir" in alone.err


def test_a_reload_says_which_settings_are_others_now(tmp_path: Path, world: World, verbs: Verbs) -> None:
    verbs.reloads = {**NOTHING_CHANGED, "settings": ["limits", "providers"]}
    with listening(tmp_path / "state", verbs, environ={}):
        assert world.run("reload").out.split() == ["settings:", "limits,", "providers"]


def test_a_schedule_that_has_started_all_its_runs_is_shown_as_ended_and_never_due(tmp_path: Path) -> None:
    few = "  - {name: few, schedule: every 1h, prompt: x, max_runs: 1}\n"
    world = World(tmp_path, config=CONFIG + few)
    job = world.settings.jobs["few"]
    assert job.timetable is not None
    with world.ledger() as connection:
        job_verbs.see(connection, {"few": job.timetable.key()}, now=NOW)
        assert world.json("job-next", "job", "next", "few", "-n", "1")
        instance = instances.register(connection, kind="daemon", version="1", now=NOW)
        claim(connection, instance, NewRun("few", NOW, Trigger.SCHEDULE), bounds=Bounds(max_runs=1))
    listed = {each["name"]: each for each in world.json("job-list", "job", "list")}
    lines = [line for line in world.run("job", "list").out.splitlines() if line.startswith("few")]
    due = world.run("job", "next", "few")
    assert listed["few"]["next_run_at"] is None
    assert "ended" in lines[0]
    assert "nothing is due" in due.out
    assert "the job few has ended, with 1 runs started: it is never due" in due.err
    assert "few" not in {row["job"] for row in world.json("status", "status")["next"]}


def test_a_missing_prompt_file_of_one_job_keeps_no_command_about_others_from_working(tmp_path: Path) -> None:
    lost = "  - {name: lost, schedule: every 1h, prompt_file: nowhere.md}\n"
    world = World(tmp_path, config=CONFIG + lost)
    paused, checked = world.run("job", "pause", "tick"), world.run("check")
    assert (paused.code, paused.out) == (0, "tick is paused\n")
    assert checked.code == 78
    assert "jobs[4].prompt_file: names a file that cannot be used" in checked.err


def test_who_interrupts_a_run_is_told_otherwise_than_who_sees_it_cancelled(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    cancelled, context = Outcome.cancelled(Reason.OPERATOR), Context(config=world.file)
    assert tell(context, Ended(1, cancelled, interrupted=True), as_json=False) == 130
    assert tell(context, Ended(1, cancelled), as_json=False) == 1
    assert capsys.readouterr().err == "promptd: run 1 was cancelled\n" * 2


def test_a_reason_is_a_line(world: World) -> None:
    said = world.run("job", "pause", "tick", "--reason", "x" * 501)
    assert said.code == 2
    assert "longer than 500 characters" in said.err
