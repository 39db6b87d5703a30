"""Words and standard input that are no UTF-8: refused with one line, before anything is asked or written."""

import os
import subprocess

import pytest
from support.workplace import PROMPTD, Workplace

from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: {{provider: custom, name: first, base_url: "{url}", model: a, api_key: key-1}}
jobs: [{{name: greet, schedule: null, prompt: "{{{{ vars.x }}}}"}}]
"""
LATIN = b"caf\xe9"


@pytest.mark.parametrize(
    ("words", "stdin", "what"),
    [
        ([b"ask", b"-"], LATIN, "standard input"),
        ([b"ask", LATIN], b"", "'PROMPT'"),
        ([b"ask", b"hi", b"--model", LATIN], b"", "'--model'"),
        ([b"job", b"run", b"greet", b"--var", b"x=" + LATIN], b"", "'--var'"),
    ],
)
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_text_that_is_no_utf_8_is_told_in_one_line(
    workplace: Workplace, primary: ThreadedLoopback, words: list[bytes], stdin: bytes, what: str, locale: str
) -> None:
    workplace.configure(CONFIG.format(url=primary.base_url))
    command = [os.fsencode(PROMPTD), b"--config", os.fsencode(workplace.config), *words]
    environment = {**workplace.environment(), "LC_ALL": locale}

    ended = subprocess.run(
        command, input=stdin, env=environment, capture_output=True, timeout=60, check=False
    )

    (line,) = ended.stderr.decode().splitlines()
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert what in line
    assert "not UTF-8 text; convert it" in line
    assert primary.requests == []


def test_a_closed_standard_input_is_told_in_one_line(workplace: Workplace) -> None:
    workplace.configure(CONFIG.format(url="http://127.0.0.1:9/v1"))
    command = ["/bin/sh", "-c", 'exec "$0" "$@" <&-', str(PROMPTD), "--config", str(workplace.config)]

    ended = subprocess.run(
        [*command, "ask", "-"], env=workplace.environment(), capture_output=True, timeout=60, check=False
    )

    (line,) = ended.stderr.decode().splitlines()
    assert (ended.returncode, "standard input is closed" in line) == (2, True)
