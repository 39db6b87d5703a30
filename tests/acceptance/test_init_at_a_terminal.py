"""`promptd init` at a terminal asks what it must; what comes of the answers passes `promptd check`."""

import codecs
import os
import signal
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.workplace import PATIENCE, PROMPTD, Workplace, eventually

ENVIRON = {"ZAI_API_KEY": "key-of-zai", "OPENAI_API_KEY": "key-of-openai"}


class Terminal:
    """A process at a terminal of its own; `screen` is all that has been shown there."""

    def __init__(self, process: "subprocess.Popen[bytes]", number: int) -> None:
        self.process, self._number = process, number
        self.screen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        os.set_blocking(number, False)

    def _look(self) -> None:
        """Read all that is there; a read gives a few kilobytes at most, which may end within a character."""
        try:
            while said := os.read(self._number, 65_536):
                self.screen += self._decoder.decode(said)
        except OSError:  # nothing more is there, or nobody is at the other end
            return

    def until(self, text: str) -> None:
        """Wait until something is shown that was not shown when it was asked last."""

        def shown() -> bool:
            self._look()
            return text in self.screen

        eventually(shown)
        self.screen = self.screen.partition(text)[2]

    def answer(self, question: str, said: str) -> None:
        """Wait for a question and answer it."""
        self.until(question)
        os.write(self._number, f"{said}\n".encode())

    def code(self) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(PATIENCE)
        self._look()
        return code


@contextmanager
def terminal(workplace: Workplace, *words: str) -> Iterator[Terminal]:
    """Run `promptd` at a terminal until the block ends."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [str(PROMPTD), *words],
        cwd=workplace.directory,
        env={**workplace.environment(), "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)
        os.close(ours)


def asked(workplace: Workplace, answers: Sequence[tuple[str, str]]) -> str:
    """Answer these questions in this order, and return what was shown after the last one."""
    with terminal(workplace, "init") as at:
        for question, said in answers:
            at.answer(question, said)
        assert at.code() == 0, at.screen
        return at.screen


def test_four_answers_make_a_configuration_that_check_accepts(workplace: Workplace) -> None:
    """Each wrong answer is told, and asked for again; a webhook's URL makes the file private."""
    workplace.environ = ENVIRON
    shown = asked(
        workplace,
        [
            ("Whom to ask first", "nobody-known"),
            ("Whom to ask first", "2"),
            ("Model of zai [glm-5.1]", ""),
            ("Time zone", "Mars/Olympus"),
            ("Time zone", "Australia/Lord_Howe"),
            ("Results go to [nowhere]", "carrier pigeon"),
            ("Results go to [nowhere]", "webhook"),
            ("URL of the webhook", "not a url"),
            ("URL of the webhook", "https://example.org/hook/t0ken"),
        ],
    )

    assert "promptd.yaml" in shown
    text = workplace.config.read_text()
    for line in ("model: zai/glm-5.1", "  - openai/gpt-5.5", "timezone: Australia/Lord_Howe"):
        assert f"\n{line}" in text
    assert 'hook: {webhook: "https://example.org/hook/t0ken"}' in text
    assert stat.S_IMODE(workplace.config.stat().st_mode) == 0o600
    assert "deliver: [hook]" in (workplace.directory / "jobs.d" / "hello.yaml").read_text()
    report = workplace.json("check")
    assert (report["ok"], report["targets"], report["warnings"]) == (True, ["hook"], [])


def test_an_apprise_url_itself_is_not_taken_and_its_variable_is(workplace: Workplace) -> None:
    shown = asked(
        workplace,
        [
            ("Which provider [openai]", "glm"),
            ("Model of zai [glm-5.1]", "glm-5-air"),
            ("Time zone", ""),
            ("Results go to [nowhere]", "apprise"),
            ("Name of the environment variable", "slack://token-a/token-b"),
            ("Name of the environment variable", "OPS_URL"),
        ],
    )

    assert "set OPS_URL to an Apprise URL" in shown
    assert "token-a" not in workplace.config.read_text()
    assert stat.S_IMODE(workplace.config.stat().st_mode) == 0o644
    workplace.environ = {**ENVIRON, "OPS_URL": "json://localhost"}
    assert workplace.json("check")["ok"]


def test_ctrl_c_at_the_last_question_leaves_nothing(workplace: Workplace) -> None:
    before = sorted(Path(workplace.directory).iterdir())
    with terminal(workplace, "init", "house") as at:
        for question in ("Which provider", "Model of openai", "Time zone"):
            at.answer(question, "")
        at.until("Results go to")
        at.process.send_signal(signal.SIGINT)
        code = at.code()

    assert code == 130
    assert sorted(Path(workplace.directory).iterdir()) == before


def test_an_option_asks_nothing_even_at_a_terminal(workplace: Workplace) -> None:
    workplace.environ = ENVIRON
    with terminal(workplace, "init", "--yes") as at:
        assert at.code() == 0
    assert "model: openai/gpt-5.5" in workplace.config.read_text()
