"""Disks that answer late or not at all: the service waits for its next start, `check` and `doctor` go on."""

import json
import threading
from pathlib import Path

import pytest
from support.hung import hung
from support.workplace import eventually
from test_cli_ground import World

from jobs import clock
from jobs.delivery.own_files import OwnFiles
from jobs.errors import ConfigError, Unavailable
from jobs.providers.secret_files import SecretFiles
from jobs.secret import Redactor, Secret
from scheduler.app import open_vault
from scheduler.cli.check import secrets_for_everybody, unusable_secrets
from scheduler.cli.context import Context
from scheduler.config.loader import load
from scheduler.config.settings import Settings
from scheduler.metrics import Known, Metrics
from scheduler.reload import Reloaded
from scheduler.reloads import Reloads
from scheduler.sd_notify import Notifier

pytestmark = pytest.mark.anyio
BRIEFLY = 0.2  # seconds
NOBODY = Known(jobs=[], providers=[], logins=[], ways=[], targets=[])


def written(path: Path) -> Path:
    path.write_text("k" * 32)
    return path


def nobody_waits() -> bool:
    return all(each.name != "secret file" for each in threading.enumerate())


def keyed(tmp_path: Path, key: Path) -> Settings:
    """Return a configuration with that file as its secret_key."""
    file = tmp_path / "promptd.yaml"
    file.write_text(f"timezone: UTC\nstate_dir: state\nmodel: openai/m\nsecret_key: 'file:{key}'\n")
    return load(file, environ={}, now=clock.utcnow())


def test_a_disk_of_secret_key_that_gives_no_answer_is_no_fault_of_the_configuration(tmp_path: Path) -> None:
    """The unit is not started again after a fault of the configuration, and is after all else."""
    path = written(tmp_path / "key")
    settings, files = keyed(tmp_path, path), SecretFiles(BRIEFLY)

    with hung(path), pytest.raises(Unavailable, match=f"^secret_key: {path}: its disk gave no answer"):
        open_vault(settings, {}, Redactor(), files=files)
    eventually(nobody_waits)

    assert open_vault(settings, {}, Redactor(), files=files).keyring.fingerprints(Secret("x"))


def test_a_disk_of_secret_key_that_answers_with_an_error_of_its_own_is_no_fault_either(
    tmp_path: Path,
) -> None:
    """The memory of a process answers with EIO where nothing is (proc(5)), as a disk does that is broken."""
    with pytest.raises(Unavailable, match=r"^secret_key: cannot read /proc/self/mem: Input/output error"):
        open_vault(keyed(tmp_path, Path("/proc/self/mem")), {}, Redactor())
    with pytest.raises(ConfigError, match=r"secret_key: cannot read .*: No such file or directory; name"):
        open_vault(keyed(tmp_path, tmp_path / "nowhere"), {}, Redactor())


def test_check_names_a_disk_that_gives_no_answer_once_and_does_not_wait_to_see_who_may_read(
    tmp_path: Path,
) -> None:
    key = written(tmp_path / "key")
    key.chmod(0o644)
    file = tmp_path / "promptd.yaml"
    credentials = f"{{credentials: [{{label: main, key: 'file:{key}'}}]}}"
    file.write_text(f"timezone: UTC\nstate_dir: state\nmodel: zai/m\nproviders: {{zai: {credentials}}}\n")
    context = Context(config=file, environ={"HOME": str(tmp_path)})
    context.secret_files = SecretFiles(BRIEFLY)

    with hung(key):
        (told,) = unusable_secrets(context)
        assert told["why"] == f"{key}: its disk gave no answer within 0.2 s; look after that disk"
        assert secrets_for_everybody(context) == []
    eventually(nobody_waits)

    (warned,) = secrets_for_everybody(context)
    assert warned.startswith(f"{file}:4:")


async def test_a_reload_that_a_disk_gives_no_answer_to_counts_as_failed() -> None:
    async def apply() -> Reloaded:
        raise Unavailable("its disk gave no answer")

    metrics = Metrics(version="1", known=NOBODY)
    reloads = Reloads(
        apply, notifier=Notifier({}), metrics=metrics, stopping=lambda: False, standing=lambda: "as before"
    )

    with pytest.raises(Unavailable, match="its disk gave no answer"):
        await reloads.reload()

    assert metrics.registry.get_sample_value("promptd_config_last_reload_successful") == 0


def test_a_disk_of_the_configuration_that_answers_with_an_error_is_no_fault_of_what_it_says() -> None:
    with pytest.raises(Unavailable, match=r"^/proc/self/mem cannot be read: Input/output error; look after"):
        load(Path("/proc/self/mem"), environ={}, now=clock.utcnow())


@pytest.mark.parametrize("asks", [True, False])
def test_no_result_takes_the_place_of_a_secret_and_its_links_are_followed_where_its_disk_is_asked(
    tmp_path: Path, asks: bool
) -> None:
    real, named = written(tmp_path / "real"), tmp_path / "named"
    named.symlink_to(real)
    own = OwnFiles(tmp_path / "state", secrets=(named,))

    assert own.taken_by(named, asks_secrets=asks) is not None
    assert (own.taken_by(real, asks_secrets=asks) is not None) is asks


def test_a_configuration_is_read_without_asking_the_disks_of_its_secrets(tmp_path: Path) -> None:
    """A disk that hangs would hold up every start and reload; what a link leads to is known at a delivery."""
    real, named, file = written(tmp_path / "real"), tmp_path / "named", tmp_path / "promptd.yaml"
    named.symlink_to(real)
    text = f"timezone: UTC\nstate_dir: state\nmodel: openai/m\nsecret_key: 'file:{named}'\n"
    file.write_text(f"{text}delivery: {{out: {{file: '{real}'}}}}\n")

    settings = load(file, environ={}, now=clock.utcnow())
    assert settings.own_files().taken_by(real) is not None

    file.write_text(f"{text}delivery: {{out: {{file: '{named}'}}}}\n")
    with pytest.raises(ConfigError, match="is a file of promptd's own"):
        load(file, environ={}, now=clock.utcnow())


def test_check_and_doctor_warn_of_a_secret_that_everybody_may_read_and_no_start_does(tmp_path: Path) -> None:
    key = written(tmp_path / "key")
    key.chmod(0o644)
    credentials = f"{{credentials: [{{label: main, key: 'file:{key}'}}]}}"
    config = f"timezone: UTC\nstate_dir: state\nmodel: zai/m\nproviders: {{zai: {credentials}}}\n"
    world = World(tmp_path, config=config)
    says = f"{world.file}:4:52: providers.zai.credentials[0].key: names a secret that everybody may read; "

    (checked,) = world.json("check", "check")["warnings"]
    found = json.loads(world.run("doctor", "--json").out)["findings"]

    assert checked.startswith(says)
    assert f"warning: {checked}\n" in world.run("check").out
    assert [each["seen"] for each in found if each["name"] == "configuration"] == [checked]
    assert world.settings.warnings == ()
