"""`job add`, `edit` and `remove`: files that are checked as if they were there; a daemon is told of them."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.controlled import NOTHING_CHANGED, Verbs, listening
from test_cli_ground import CONFIG, KEYS, World

from jobs.delivery_state import Deliver, DeliverOn
from scheduler.config.loader import load
from scheduler.config.settings import Settings

REFUSED = {
    **NOTHING_CHANGED,
    "ok": False,
    "faults": ["jobs.d/new.yaml:1:1: name: the daemon does not like it"],
}
NEW = "# mine\nname: new\nschedule: every 90s\nprompt: hello\n"


def world(home: Path, environ: Mapping[str, str] = KEYS) -> World:
    return World(home, config=CONFIG, environ={**environ, "TMPDIR": str(home)}, migrated=False)


def editing(home: Path, script: str) -> World:
    """Return a world whose editor is a shell script; `$1` is the file."""
    editor = home / "my editor"
    editor.write_text(f"#!/bin/sh\n{script}\n")
    editor.chmod(0o755)
    return world(home, {**KEYS, "EDITOR": f"'{editor}' "})


def with_job(world: World, name: str = "new", text: str = NEW) -> Path:
    path = world.home / "jobs.d" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def settled(world: World) -> Settings:
    return load(world.file, environ=world.environ, now=world.now)


def left_over(world: World) -> list[str]:
    return sorted(os.listdir(world.home / "jobs.d"))


@pytest.mark.parametrize("text", ["[]", "{}", "# nothing yet\n[]\n"])
def test_a_file_without_a_job_is_refused_and_nothing_is_written(tmp_path: Path, text: str) -> None:
    ground = world(tmp_path)
    (tmp_path / "draft.yaml").write_text(text)
    said = ground.run("job", "add", str(tmp_path / "draft.yaml"))
    assert said.code == 2
    assert "draft.yaml holds no job" in said.err
    assert not (tmp_path / "jobs.d").exists()


def test_a_pipe_is_read_when_somebody_writes_and_is_empty_when_nobody_does(tmp_path: Path) -> None:
    """Such as `promptd job add <(generate)`."""
    ground, pipe = world(tmp_path), tmp_path / "pipe"
    os.mkfifo(pipe)
    nobody = ground.run("job", "add", str(pipe))
    reader, writer = os.pipe()
    os.write(writer, NEW.encode())
    os.close(writer)
    somebody = ground.run("job", "add", f"/proc/self/fd/{reader}")
    os.close(reader)
    assert (nobody.code, somebody.code) == (78, 0)
    assert "is empty" in nobody.err
    assert left_over(ground) == ["new.yaml"]


def test_line_ends_and_a_byte_order_mark_stay_as_they_were(tmp_path: Path) -> None:
    ground = editing(tmp_path, 'sed -i s/hello/goodbye/ "$1"')
    path = with_job(ground)
    windows = b"\xef\xbb\xbf" + NEW.replace("\n", "\r\n").encode()
    path.write_bytes(windows)
    idle = editing(tmp_path, "exit 0").run("job", "edit", "new")
    assert "nothing was changed" in idle.out
    edited = editing(tmp_path, 'sed -i s/hello/goodbye/ "$1"').run("job", "edit", "new")
    assert edited.code == 0
    assert path.read_bytes() == windows.replace(b"hello", b"goodbye")


def test_a_job_from_a_file_is_written_word_for_word(tmp_path: Path) -> None:
    ground = world(tmp_path)
    (tmp_path / "draft.yaml").write_text(NEW)
    data = ground.json("job-add", "job", "add", str(tmp_path / "draft.yaml"))
    written = tmp_path / "jobs.d" / "new.yaml"
    assert written.read_text() == NEW
    assert stat.S_IMODE(written.stat().st_mode) == 0o644
    assert data == {
        "file": str(written),
        "names": ["new"],
        "outcome": "no daemon runs that would have to be told",
    }
    assert left_over(ground) == ["new.yaml"]


def test_a_list_from_standard_input_is_one_file_named_for_its_first_job(tmp_path: Path) -> None:
    text = b"- {name: b-one, schedule: null, prompt: x}\n- {name: a-two, schedule: null, prompt: y}\n"
    ground = world(tmp_path)
    assert ground.run("job", "add", "-", stdin=text).code == 0
    assert left_over(ground) == ["b-one.yaml"]
    assert {"b-one", "a-two"} <= settled(ground).jobs.keys()


@pytest.mark.parametrize(
    "prompt",
    [
        "hello",
        "two\nlines: {{ job }}\n",
        "no end\nof line",
        "  indented\nfirst",
        'a "quote": # no comment',
        "tab\there\nand é☃",
        "ends\n\n",
        "null",
        "0o17",
    ],
)
def test_a_job_from_options_has_exactly_the_prompt_that_was_given(tmp_path: Path, prompt: str) -> None:
    ground = world(tmp_path)
    options = (
        "--name",
        "new",
        "--schedule",
        "0 7 * * *",
        "--schedule",
        "@hourly",
        "--timezone",
        "Asia/Tokyo",
    )
    said = ground.run("job", "add", *options, "--prompt", prompt, "--description", "why: because")
    assert said.code == 0, said
    (written,) = (each for each in settled(ground).jobs.values() if each.name == "new")
    assert written.job.prompt == prompt
    assert written.job.description == "why: because"
    assert written.timezone.key == "Asia/Tokyo"


def test_a_job_without_a_schedule_is_run_by_hand(tmp_path: Path) -> None:
    ground = world(tmp_path)
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("what is new?")
    assert ground.run("job", "add", "--name", "new", "--prompt-file", str(prompt)).code == 0
    job = settled(ground).jobs["new"]
    assert job.schedule is None
    assert job.job.prompt_file == prompt


def test_a_job_from_options_delivers_where_and_when_they_say(tmp_path: Path) -> None:
    ground = world(tmp_path)
    ground.file.write_text(CONFIG + "delivery: {ops: {file: a.md}, hook: {file: b.md}}\n")
    options = ("--name", "new", "--prompt", "x", "--deliver", "hook", "--deliver", "ops:failure")

    said = ground.run("job", "add", *options)
    refused = ground.run("job", "add", "--name", "other", "--prompt", "x", "--deliver", "hok")

    assert said.code == 0, said
    assert settled(ground).jobs["new"].job.deliver == (Deliver("hook"), Deliver("ops", DeliverOn.FAILURE))
    assert (refused.code, "did you mean hook?" in refused.err) == (78, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            b"name: new\nschedule: every 90s\nprompt: '{{ nobody }}'\nafter: [nowhere]\n",
            "standard input:4:9:",
        ),
        (b"name: new\nschedule: every 90 sec\nprompt: x\n", "standard input:2:"),
        (b"name: ../evil\nschedule: null\nprompt: x\n", "standard input:1:"),
        (b"a: b: c\n", "standard input:1:"),
        (b"", "standard input"),
    ],
)
def test_a_job_with_faults_is_not_written_and_every_fault_has_its_place(
    tmp_path: Path, text: bytes, said: str
) -> None:
    ground = world(tmp_path)
    refused = ground.run("job", "add", "-", stdin=text)
    assert refused.code == 78
    assert said in refused.err
    assert not (tmp_path / "jobs.d").exists()


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    ground = world(tmp_path)
    refused = ground.run("job", "add", "--name", "tick", "--prompt", "again")
    assert (refused.code, "tick" in refused.err, "job edit tick" in refused.err) == (2, True, True)


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    ground = world(tmp_path)
    path = with_job(ground, "new", NEW.replace("name: new", "name: other"))
    refused = ground.run("job", "add", "-", stdin=NEW.encode())
    assert refused.code == 2
    assert "name: other" in path.read_text()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--name", "new"),
        ("--prompt", "x"),
        ("-", "--name", "new"),
        ("--name", "new", "--prompt", "x", "--prompt-file", "/dev/null"),
    ],
)
def test_options_that_make_no_job_are_a_usage_error(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert world(tmp_path).run("job", "add", *words).code == 2


def test_a_daemon_is_told_of_a_new_job(tmp_path: Path) -> None:
    ground, verbs = world(tmp_path), Verbs(tmp_path / "promptd.yaml")
    with listening(tmp_path / "state", verbs, environ={}):
        said = ground.run("job", "add", "-", stdin=NEW.encode())
    assert said.code == 0
    assert "the daemon has applied it" in said.out
    assert verbs.asked == [("reload",)]


@pytest.mark.parametrize("reloads", [REFUSED, {**NOTHING_CHANGED, "faults": ["raised"]}])
def test_what_the_daemon_refuses_leaves_everything_as_it_was(tmp_path: Path, reloads: object) -> None:
    ground = editing(tmp_path, 'echo "description: changed" >> "$1"')
    kept = with_job(ground, "kept", NEW.replace("name: new", "name: kept"))
    before = kept.read_text()
    with listening(tmp_path / "state", Verbs(tmp_path / "promptd.yaml", reloads), environ={}):  # type: ignore[arg-type]
        added = ground.run("job", "add", "-", stdin=NEW.encode())
        edited = ground.run("job", "edit", "kept")
        removed = ground.run("job", "remove", "kept", "--yes")
    assert [each.code for each in (added, edited, removed)] == [78, 78, 78]
    assert left_over(ground) == ["kept.yaml"]
    assert kept.read_text() == before


def test_an_edited_job_takes_its_files_place_with_its_mode(tmp_path: Path) -> None:
    ground = editing(tmp_path, 'sed -i s/90s/120s/ "$1"')
    path = with_job(ground)
    path.chmod(0o600)
    said = ground.run("job", "edit", "new")
    assert said.code == 0, said
    assert path.read_text() == NEW.replace("90s", "120s")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert left_over(ground) == ["new.yaml"]


def test_an_edit_with_faults_leaves_the_original_and_keeps_what_was_typed(tmp_path: Path) -> None:
    ground = editing(tmp_path, 'sed -i s/90s/never/ "$1"')
    path = with_job(ground)
    said = ground.run("job", "edit", "new")
    assert said.code == 78
    assert f"{path}:3:" in said.err
    assert path.read_text() == NEW
    copy = Path(
        next(line for line in said.err.splitlines() if "your version is" in line).rpartition(" is ")[2]
    )
    assert "never" in copy.read_text()
    copy.unlink()
    copy.parent.rmdir()


@pytest.mark.parametrize(
    ("script", "code", "word"), [("true", 0, "nothing was changed"), ("exit 3", 2, "with 3")]
)
def test_an_editor_that_changes_nothing_or_fails_changes_nothing(
    tmp_path: Path, script: str, code: int, word: str
) -> None:
    ground = editing(tmp_path, script)
    path = with_job(ground)
    said = ground.run("job", "edit", "new")
    assert said.code == code
    assert word in said.out + said.err
    assert path.read_text() == NEW


def test_a_file_that_somebody_else_changes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    ground = editing(tmp_path, f"sed -i s/90s/120s/ \"$1\"; echo '# theirs' >> {tmp_path}/jobs.d/new.yaml")
    path = with_job(ground)
    said = ground.run("job", "edit", "new")
    assert said.code == 2
    assert "somebody else" in said.err
    assert path.read_text() == NEW + "# theirs\n"


def test_a_job_of_the_main_file_is_edited_in_it(tmp_path: Path) -> None:
    ground = editing(tmp_path, "sed -i 's/every 90s/every 95s/' \"$1\"")
    assert ground.run("job", "edit", "tick").code == 0
    assert "every 95s" in ground.file.read_text()


def test_a_removed_job_is_gone(tmp_path: Path) -> None:
    ground = world(tmp_path)
    path = with_job(ground)
    assert ground.run("job", "remove", "new").code == 2, "nobody can be asked here"
    assert path.exists()
    assert ground.run("job", "remove", "new", "--yes").code == 0
    assert not path.exists()


def test_a_job_beside_others_is_not_removed_and_its_line_is_told(tmp_path: Path) -> None:
    ground = world(tmp_path)
    path = with_job(
        ground, "two", "- {name: one, schedule: null, prompt: x}\n- {name: two, schedule: null, prompt: y}\n"
    )
    inline, listed = ground.run("job", "remove", "tick", "--yes"), ground.run("job", "remove", "two", "--yes")
    assert (inline.code, listed.code) == (2, 2)
    assert f"{ground.file}:14:" in inline.err
    assert f"{path}:2:" in listed.err


def test_a_job_that_another_one_needs_is_not_removed(tmp_path: Path) -> None:
    ground = world(tmp_path)
    path = with_job(ground)
    with_job(ground, "later", "name: later\nschedule: null\nprompt: x\ncontext_from: [new]\n")
    assert ground.run("job", "remove", "new", "--yes").code == 78
    assert path.exists()
