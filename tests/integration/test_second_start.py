"""A second `promptd start` of one state directory: told that a daemon runs, before anything is touched."""

import os
from pathlib import Path

import pytest
from support.controlled import Verbs, listening
from support.workplace import Workplace

from scheduler.config.settings import Listen
from scheduler.control_socket import listening_process
from scheduler.http_server import bound

JOB = """
model: {provider: custom, base_url: "http://127.0.0.1:9/v1", model: small, api_key: no-key-required}
jobs: [{name: hand, schedule: null, prompt: x}]
"""


@pytest.fixture
def house(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.mark.parametrize(
    ("runs", "code", "said"),
    [
        (True, 75, f"promptd: a daemon runs already, process {os.getpid()}; "),
        (False, 69, "Address already in use; another program listens there: see `promptd status`"),
    ],
    ids=["a daemon", "another program"],
)
def test_a_second_start_is_told_who_has_its_address(
    house: Workplace, runs: bool, code: int, said: str
) -> None:
    with bound(Listen("127.0.0.1", 0)) as figures:
        house.configure(f"server: {{listen: '127.0.0.1:{figures.getsockname()[1]}'}}" + JOB)
        state = house.directory / ("state" if runs else "elsewhere")
        with listening(state, Verbs(house.config), environ={}):
            told = house.run("start")

    assert (told.code, said in told.err) == (code, True), told
    assert house.database.exists() is not runs, "a daemon that runs already is seen before the database is"


def test_who_listens_is_known_by_the_socket_in_the_state_or_the_runtime_directory(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    environ = {"RUNTIME_DIRECTORY": str(runtime)}
    assert listening_process(tmp_path, environ) is None
    with listening(tmp_path, Verbs(tmp_path / "promptd.yaml"), environ={}):
        assert listening_process(tmp_path, environ) == os.getpid()
        assert listening_process(tmp_path / "other", {}) is None
    with listening(tmp_path / "other", Verbs(tmp_path / "promptd.yaml"), environ=environ):
        assert listening_process(tmp_path, environ) == os.getpid()
    assert listening_process(tmp_path, environ) is None
