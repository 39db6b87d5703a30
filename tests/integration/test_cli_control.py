"""The control socket: where it lies, who may have it, and what is understood on it."""

import json
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from support.controlled import Verbs, listening
from support.workplace import eventually

from scheduler.control_protocol import LONGEST, VERSION, close_all, connect

CALM = {"HOME": "/nonexistent"}


def say(path: Path, *lines: bytes, descriptors: tuple[int, ...] = ()) -> list[dict[str, object]]:
    """Send lines, each after the reply to the one before, until the daemon closes; return the replies.

    The descriptors go with the first line.
    """
    replies = []
    with connect(path, timeout=60) as caller, caller.makefile("rb") as heard, suppress(ConnectionError):
        for number, line in enumerate(lines):
            socket.send_fds(caller, [line + b"\n"], [] if number else list(descriptors))
            reply = heard.readline()
            if not reply:
                break
            replies.append(json.loads(reply))
    return replies


def verb(name: str, **what: object) -> bytes:
    return json.dumps({"v": VERSION, "verb": name, **what}).encode()


@pytest.fixture
def verbs(tmp_path: Path) -> Verbs:
    return Verbs(tmp_path / "promptd.yaml")


def test_several_requests_go_over_one_connection(tmp_path: Path, verbs: Verbs) -> None:
    with listening(tmp_path / "state", verbs, environ=CALM) as control:
        assert control.path is not None
        hello, woken, mine, begun = say(
            control.path,
            verb("hello"),
            verb("wake", names=["a", "b"]),
            verb("cancel", run_id=3),
            verb("run", job="a", values={"k": "v"}, retry_of=None, force=False),
        )
    assert hello["answer"] == dict(verbs.hello())
    assert (woken["answer"], mine["answer"], begun["answer"]) == ({}, {"cancelled": False}, {"run_id": 7})
    assert verbs.asked == [("wake", "a", "b"), ("cancel", 3), ("run", "a", {"k": "v"}, None, False)]


def test_what_a_verb_refuses_keeps_the_connection_and_says_which_kind_it_is(
    tmp_path: Path, verbs: Verbs
) -> None:
    with listening(tmp_path, verbs, environ=CALM) as control:
        assert control.path is not None
        refused, hello = say(control.path, verb("run", job="held", values={}, force=False), verb("hello"))
    assert refused["error"] == {"kind": "Busy", "text": "held is held; try again later"}
    assert "answer" in hello


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (verb("dance"), "does not know 'dance'"),
        (verb("cancel", run_id="3"), "does not know 'cancel', or not so"),
        (json.dumps({"v": VERSION + 1, "verb": "hello"}).encode(), f"speaks version {VERSION}"),
        (b"hello", "no JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 5000, "no JSON"),
        (verb("carry", command="status", terminal={}), "five file descriptors"),
    ],
)
def test_what_is_not_understood_is_refused_in_words_and_the_connection_ends(
    tmp_path: Path, verbs: Verbs, line: bytes, said: str
) -> None:
    with listening(tmp_path, verbs, environ=CALM) as control:
        assert control.path is not None
        replies = say(control.path, line, verb("hello"))
    (refused,) = replies
    assert refused["error"]["kind"] == "Unspoken"  # type: ignore[index]
    assert said in refused["error"]["text"]  # type: ignore[index]


def test_a_message_without_an_end_is_not_listened_to(tmp_path: Path, verbs: Verbs) -> None:
    with listening(tmp_path, verbs, environ=CALM) as control:
        assert control.path is not None
        endless = say(control.path, verb("wake", names=["a" * LONGEST]), verb("hello"))
        (hello,) = say(control.path, verb("hello"))
    assert all("error" in reply for reply in endless)
    assert "answer" in hello
    assert verbs.asked == []


def test_too_many_descriptors_are_refused_and_none_of_them_stays_open(tmp_path: Path, verbs: Verbs) -> None:
    with listening(tmp_path, verbs, environ=CALM) as control:
        assert control.path is not None
        say(control.path, verb("hello"))
        before = len(os.listdir("/proc/self/fd"))
        sent = [os.open("/dev/null", os.O_RDONLY) for _ in range(40)]
        (refused,) = say(control.path, verb("hello"), descriptors=tuple(sent))
        close_all(sent)
        say(control.path, verb("hello"), descriptors=(0, 1))
        assert "more than 16" in str(refused["error"])
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_the_socket_is_for_its_user_and_group_and_goes_with_the_daemon(tmp_path: Path, verbs: Verbs) -> None:
    with listening(tmp_path / "state", verbs, environ=CALM) as control:
        assert control.path == tmp_path / "state" / "control.sock"
        assert stat.S_IMODE(control.path.stat().st_mode) == 0o660
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert sorted(os.listdir(tmp_path / "state")) == ["control.lock"]


def test_in_a_runtime_directory_it_is_found_through_a_link_in_the_state_directory(
    tmp_path: Path, verbs: Verbs
) -> None:
    runtime, state = tmp_path / "run", tmp_path / "state"
    runtime.mkdir()
    with listening(state, verbs, environ={"RUNTIME_DIRECTORY": f"{runtime}:/elsewhere"}) as control:
        assert control.path == runtime / "control.sock"
        (hello,) = say(state / "control.sock", verb("hello"))
    assert "answer" in hello
    assert os.listdir(runtime) == []
    assert os.listdir(state) == ["control.lock"]


def test_a_directory_with_a_long_name_has_a_socket_all_the_same(tmp_path: Path, verbs: Verbs) -> None:
    """sockaddr_un holds 108 bytes."""
    state = tmp_path / ("long" * 40) / "state"
    with listening(state, verbs, environ=CALM) as control:
        assert control.path is not None
        (hello,) = say(control.path, verb("hello"))
    assert "answer" in hello


def test_what_a_killed_daemon_has_left_is_replaced(tmp_path: Path, verbs: Verbs) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        directory = os.open(tmp_path, os.O_PATH)
        dead.bind(f"/proc/self/fd/{directory}/control.sock")
        os.close(directory)
    assert (tmp_path / "control.sock").is_socket()
    with listening(tmp_path, verbs, environ=CALM) as control:
        assert control.path is not None
        (hello,) = say(control.path, verb("hello"))
    assert "answer" in hello


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_second_daemon_of_the_state_directory_goes_on_without_and_says_so(
    tmp_path: Path, verbs: Verbs, caplog: pytest.LogCaptureFixture, elsewhere: bool
) -> None:
    other = {"RUNTIME_DIRECTORY": str(tmp_path / "run")} if elsewhere else CALM
    with listening(tmp_path, verbs, environ=CALM) as first:
        with listening(tmp_path, Verbs(tmp_path / "other.yaml"), environ=other) as second:
            assert second.path is None
        assert first.path is not None
        (hello,) = say(first.path, verb("hello"))
    assert hello["answer"] == dict(verbs.hello())
    assert [record.getMessage() for record in caplog.records if "another daemon" in record.getMessage()]


def test_a_file_that_is_no_socket_is_left_where_it_is(
    tmp_path: Path, verbs: Verbs, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "control.sock").write_text("mine")
    with listening(tmp_path, verbs, environ=CALM) as control:
        assert control.path is None
    assert (tmp_path / "control.sock").read_text() == "mine"
    assert "something else than a socket" in caplog.text


def test_who_asks_for_a_change_stands_in_the_log(
    tmp_path: Path, verbs: Verbs, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"), listening(tmp_path, verbs, environ=CALM) as control:
        assert control.path is not None
        say(control.path, verb("stop", now=True))
    assert f"uid {os.getuid()} (process {os.getpid()}) asks this daemon to stop now" in caplog.text
