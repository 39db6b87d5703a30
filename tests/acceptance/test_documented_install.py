"""The words of the documents, executed: from a fresh machine to a delivered digest, and back to nothing."""

import re
import shlex
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.boot.front import standing_for
from support.boot.machine import Machine
from support.boot.network import network_of
from support.boot.service import WHEELS, machine_with_wheels
from support.boot.wheelhouse import CHECKOUT
from support.debian import NotThere

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback
from scheduler import __version__

INSTALL, BEGIN = CHECKOUT / "systemd" / "README.md", CHECKOUT / "README.md"
OLD = "0.0.1"
KEY = "sk-typed-in-by-an-operator-0123456789"
DIGEST = "All is well with this machine."
ERROR = "the disk is about to die"
FOR_OTHER_SITUATIONS = {"sh-at-a-terminal", "sh-from-253"}
_PART = re.compile(r"^(?:## (?P<heading>.*)|```(?P<kind>sh\S*)\n(?P<words>(?:.*\n)*?)```)$", re.MULTILINE)
_MARK = "# ## "


@dataclass(frozen=True)
class Done:
    """What the words of `systemd/README.md` printed, by heading, and what a provider was asked."""

    machine: Machine
    printed: dict[str, str]
    provider: ThreadedLoopback


def blocks(document: Path) -> list[tuple[str, str, str]]:
    """Return the shell blocks of a document: under which heading, of which kind, and their words."""
    heading, found = "", []
    for part in _PART.finditer(document.read_text()):
        if part["heading"] is not None:
            heading = part["heading"]
        else:
            found.append((heading, part["kind"], part["words"]))
    return found


def pages(document: Path) -> list[tuple[str, str]]:
    """Return the blocks that are meant for everybody: each under its heading, as a script that prints it."""
    return [
        (heading, f"printf '%s\\n' {shlex.quote(_MARK + heading)}\n{words}")
        for heading, kind, words in blocks(document)
        if kind == "sh"
    ]


def in_a_terminal(document: Path) -> str:
    """Return how README.md begins, in a directory of its own; the daemon in the foreground is stopped."""
    (words,) = (words for heading, _, words in blocks(document) if heading == "Begin")
    stopped = "promptd start &\nuntil promptd reload; do sleep 0.2; done\npromptd stop\nwait $!"
    told = re.sub(r"^promptd start\b.*$", stopped, words, flags=re.MULTILINE)
    assert told != words
    return f"printf '%s\\n' '{_MARK}Begin'\nmkdir begin\ncd begin\nexport OPENAI_API_KEY={KEY}\n{told}"


def older(wheel: Path, directory: Path) -> Path:
    """Return the same wheel as an earlier version: a wheel says which it is by its names and METADATA."""
    _, version, tags = wheel.name.split("-", 2)
    made = directory / f"promptd-{OLD}-{tags}"
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(made, "w") as target:
        for each in source.infolist():
            content = source.read(each)
            if each.filename.endswith(".dist-info/METADATA"):
                content = content.replace(f"\nVersion: {version}\n".encode(), f"\nVersion: {OLD}\n".encode())
            name = each.filename.replace(f"promptd-{version}.", f"promptd-{OLD}.", 1)
            if not name.endswith(".dist-info/RECORD"):
                target.writestr(name, content)
        names = "".join(f"{each},,\n" for each in target.namelist())
        target.writestr(f"promptd-{OLD}.dist-info/RECORD", names)
    return made


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, ThreadedLoopback]]:
    """A fresh machine, the old wheel in root's home; a provider of the tests answers for OpenAI there."""
    directory, server = tmp_path_factory.mktemp("install"), ThreadedLoopback()
    server.script(Endpoint.RESPONSES, Reply.text(DIGEST))
    try:
        with machine_with_wheels(directory) as (booted, wheel):
            older(directory / "wheels" / Path(wheel).name, directory / "wheels")
            booted.do("sh", "-c", f"cp {WHEELS}/promptd-{OLD}-*.whl /root")
            with network_of(booted.leader):
                server.start()
            with standing_for("api.openai.com", booted, server.port, directory=directory):
                yield booted, server
            server.stop()
    except NotThere as why:
        pytest.skip(str(why))


def blocks_of_this_page() -> list[str]:
    """Return the blocks of `systemd/README.md`, with what is given there: the key, and the new wheel."""
    given = {"The key": f"OPENAI_API_KEY={KEY}\n", "Upgrade": f"cp -n {WHEELS}/promptd-*.whl .\n"}
    return [f"{given.get(heading, '')}{words}" for heading, words in pages(INSTALL)]


@pytest.fixture(scope="module")
def done(machine: tuple[Machine, ThreadedLoopback]) -> Done:
    """All words of `systemd/README.md`, each block in a shell of its own; the new wheel comes in between."""
    booted, server = machine
    booted.do("logger", "--priority", "daemon.err", ERROR)
    install, *rest = blocks_of_this_page()
    for number, words in enumerate((install, in_a_terminal(BEGIN), *rest)):
        booted.put(f"/root/words-{number:02}", f"set -e\ncd\n{words}")
    shells = "set -e\nfor each in /root/words-*; do bash $each; done"
    ended = booted.run("bash", "-c", shells, stdin="", timeout=1_500)
    journal = "" if ended.code == 0 else booted.run("journalctl", "--no-pager", "--unit=promptd").out
    assert ended.code == 0, f"{ended.out}\n{ended.err}\n{journal}"
    printed: dict[str, str] = {}
    for part in ended.out.split(_MARK)[1:]:
        heading, _, text = part.partition("\n")
        printed[heading] = printed.get(heading, "") + text
    return Done(booted, printed, server)


def test_the_first_words_of_the_readme_end_in_an_answer_and_a_daemon_that_can_be_stopped(done: Done) -> None:
    assert DIGEST in done.printed["Begin"]
    assert "wrote promptd.yaml" in done.printed["Begin"]


def test_the_install_page_ends_in_a_delivered_digest(done: Done) -> None:
    assert "active (running)" in done.printed["Start"]
    assert re.search(rf"^[0-9-]+\.md\n{DIGEST}$", done.printed["The first digest"], re.MULTILINE)


def test_the_key_that_was_typed_in_reaches_the_provider_and_no_page_of_the_journal(done: Done) -> None:
    journal = done.machine.do("journalctl", "--no-pager", "--output=export")

    assert {each.by_name["authorization"] for each in done.provider.requests} == {f"Bearer {KEY}"}
    assert KEY not in journal


def test_the_documented_words_find_a_run_in_the_journal(done: Done) -> None:
    assert "run_id=1" in done.printed["Logs"]


def test_the_journal_s_errors_reach_the_model(done: Done) -> None:
    assert any(ERROR in each.prompt for each in done.provider.requests)


def test_after_an_upgrade_and_the_way_back_the_runs_from_before_are_there(done: Done) -> None:
    installed = re.findall(r"Successfully installed promptd-(\S+)", done.printed["Upgrade"])

    assert installed == [__version__, OLD]
    assert "morning-digest" in done.printed["Upgrade"]


def test_nothing_is_left_of_it_at_the_end(done: Done) -> None:
    places = ("/opt", "/etc", "/usr/local", "/var/lib", "/run")
    found = done.machine.run("find", *places, "-name", "*promptd*", "-not", "-path", "*/journal/*").out

    assert found == ""
    assert done.machine.properties("promptd", "LoadState") == {"LoadState": "not-found"}


def test_only_what_is_for_another_situation_is_not_executed() -> None:
    kinds = {kind for _, kind, _ in blocks(INSTALL)}

    assert kinds == {"sh", *FOR_OTHER_SITUATIONS}
