"""What is shipped is whole: the wheel alone, in an empty environment, migrates a database and runs a job."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CHECKOUT = Path(__file__).parents[2]
TIMEOUT = 1800
CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
jobs: [{{name: pulse, schedule: every 1s, prompt: "Say something."}}]
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of commands of an empty environment in which pip has installed the wheel."""
    directory = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory)
    run(*build, cwd=CHECKOUT)
    (wheel,) = directory.glob("promptd-*.whl")
    run(sys.executable, "-m", "venv", directory / "venv", cwd=directory)
    pip = (directory / "venv" / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check")
    run(*pip, "--quiet", "--constraint", CHECKOUT / "constraints.txt", wheel, cwd=directory)
    return directory / "venv" / "bin"


def test_the_installed_wheel_is_not_the_checkout(installed: Path) -> None:
    where = "import jobs, scheduler, migrations as m; print(jobs.__file__, scheduler.__file__, m.__file__)"

    files = run(installed / "python", "-c", where, cwd=installed).split()

    assert [Path(file).is_relative_to(installed.parent) for file in files] == [True] * 3


def test_the_installed_wheel_migrates_a_fresh_database_and_runs_a_scheduled_job(
    installed: Path, workplace: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, Reply.text("said to a wheel"))
    workplace.configure(CONFIG.format(url=primary.base_url))
    promptd = (str(installed / "promptd"), "--config", str(workplace.config))

    with workplace.daemon(*promptd, "start") as daemon:
        shown = workplace.shown(workplace.finished_runs()[0]["id"])
        code = daemon.stop()

    assert (shown["state"], shown["output"]) == ("succeeded", "said to a wheel")
    assert code == 0
    assert json.loads(run(*promptd, "db", "current", "--json", cwd=workplace.directory))["current"]
