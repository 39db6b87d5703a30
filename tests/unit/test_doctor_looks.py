"""What `promptd doctor` makes of what it sees: pure looks, each with its mend."""

import os
import stat
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.hung import hung

from jobs.credential import SecretReference
from jobs.providers.secret_files import SecretFiles
from scheduler.doctor import files, ledger, surroundings, times, unit
from scheduler.doctor.finding import Finding, Level

NOW = datetime(2026, 12, 1, tzinfo=UTC)
MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /run rw,nosuid shared:5 - tmpfs tmpfs rw
41 22 0:44 / /srv/with\\040space rw shared:9 - nfs4 host:/export rw
42 22 8:2 / /srv/with\\040space/local rw shared:9 - xfs /dev/sdb rw
"""


def levels(findings: Iterable[Finding]) -> list[Level]:
    """Return how bad each is; what is bad has a mend, and nothing else has."""
    found = list(findings)
    for each in found:
        assert bool(each.mend) == (each.level in (Level.WARNING, Level.FAULT)), each
        assert each.seen
    return [each.level for each in found]


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 34, 1), Level.FAULT),
        ((3, 40, 1), Level.WARNING),
        ((3, 44, 5), Level.WARNING),
        ((3, 44, 6), Level.OK),
        ((3, 45, 0), Level.WARNING),
        ((3, 50, 7), Level.OK),
        ((3, 51, 2), Level.WARNING),
        ((3, 51, 3), Level.OK),
        ((3, 53, 0), Level.OK),
    ],
)
def test_a_sqlite_that_is_too_old_and_one_with_the_wal_reset_bug(
    version: tuple[int, ...], level: Level
) -> None:
    assert levels([surroundings.sqlite(version)]) == [level]


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("3.11.3", "<4,>=3.11.3", True),
        ("3.11", "<4,>=3.11.3", False),
        ("4.0.0a1", "<4,>=3.11.3", False),
        ("4", "<4.0", False),
        ("2.1.0b2", ">=2.1", True),
        ("2026.3", "", True),
    ],
)
def test_versions_are_held_against_what_the_package_requires(version: str, wanted: str, fits: bool) -> None:
    assert surroundings.fits(version, wanted) == fits


def test_a_library_that_is_missing_or_of_another_version_is_a_fault() -> None:
    required = ["click>=8.2", "openai[aiohttp]<4,>=3", 'authlib>=1.6; extra == "oauth"']

    (right,) = surroundings.libraries(required, {"click": "8.2.1", "openai": "3.5"}.get)
    (wrong,) = surroundings.libraries(required, {"click": "8.1"}.get)

    assert levels([right]) == [Level.OK]
    assert levels([wrong]) == [Level.FAULT]
    assert wrong.seen == "click 8.1 is not >=8.2; openai is missing"
    assert levels(surroundings.libraries([], {}.get)) == [Level.UNKNOWN]


def test_many_runs_at_once_want_many_files() -> None:
    assert levels([surroundings.descriptors(1024, 32)]) == [Level.OK]
    low = surroundings.descriptors(256, 100)
    assert levels([low]) == [Level.WARNING]
    assert "LimitNOFILE=1328" in low.mend


@pytest.mark.parametrize(
    ("variable", "value", "level"),
    [
        ("HTTPS_PROXY", "http://somebody:password-of-the-proxy@proxy.example:3128", Level.OK),
        ("https_proxy", "http://proxy.example", Level.OK),
        ("ALL_PROXY", "socks5://proxy.example:1080", Level.FAULT),
        ("ALL_PROXY", "nonsense", Level.FAULT),
        ("HTTP_PROXY", "http://proxy.example:99999", Level.FAULT),
        ("HTTP_PROXY", "http://[", Level.FAULT),
        ("NO_PROXY", "localhost", Level.OK),
    ],
)
def test_a_proxy_is_named_without_its_login_and_nonsense_is_a_fault(
    variable: str, value: str, level: Level
) -> None:
    found = list(surroundings.proxies({variable: value, "PATH": "/bin"}))

    assert levels(found) == [level]
    assert "password-of-the-proxy" not in str(found)


def test_certificates_are_looked_for_where_the_environment_says(tmp_path: Path) -> None:
    """The daemon ends at once with the first two; with the third no provider is believed."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    for environ in (
        {"SSL_CERT_FILE": str(tmp_path / "missing.pem")},
        {"SSL_CERT_FILE": str(empty)},
        {"SSL_CERT_DIR": str(tmp_path / "nowhere")},
    ):
        assert levels(surroundings.certificates(environ)) == [Level.FAULT]


@pytest.mark.parametrize(
    ("path", "kind", "level"),
    [
        ("/var/lib/promptd/promptd.db", "ext4", Level.OK),
        ("/run/promptd.db", "tmpfs", Level.WARNING),
        ("/srv/with space/promptd.db", "nfs4", Level.FAULT),
        ("/srv/with space/local/promptd.db", "xfs", Level.OK),
        ("/srv/with space too/promptd.db", "ext4", Level.OK),
    ],
)
def test_the_file_system_under_the_database_is_the_nearest_mount(path: str, kind: str, level: Level) -> None:
    found = ledger.file_system(Path(path), MOUNTS)

    assert ledger.kind_of(Path(path), MOUNTS) == kind
    assert levels([found]) == [level]


def test_a_file_system_that_is_not_known_is_unknown() -> None:
    assert levels([ledger.file_system(Path("/a"), "")]) == [Level.UNKNOWN]


def test_a_clock_that_nobody_keeps_right_and_one_before_our_time() -> None:
    assert levels([times.clock(NOW, True)]) == [Level.OK]
    assert levels([times.clock(NOW, False)]) == [Level.WARNING]
    assert levels([times.clock(NOW, None)]) == [Level.UNKNOWN]
    assert levels([times.clock(datetime(1970, 1, 1, tzinfo=UTC), True)]) == [Level.FAULT]


@pytest.mark.parametrize(
    ("system", "package", "level"),
    [
        (None, None, Level.FAULT),
        (None, "2026f", Level.OK),
        ("", "2026f", Level.UNKNOWN),
        ("2025b", None, Level.OK),
        ("2025b", "2026f", Level.WARNING),
        ("2026f", "2026f", Level.OK),
        ("2027a", "2026f", Level.OK),
    ],
)
def test_the_systems_zone_data_is_used_and_may_be_older(
    system: str | None, package: str | None, level: Level
) -> None:
    assert levels([times.zone_data(system, package)]) == [level]


def test_the_version_of_the_systems_zone_data_is_in_its_first_line(tmp_path: Path) -> None:
    assert times.system_zone_data([str(tmp_path)]) is None
    (tmp_path / "UTC").touch()
    assert times.system_zone_data([str(tmp_path)]) == ""
    (tmp_path / "tzdata.zi").write_text("# version 2026c\nR A\n")
    assert times.system_zone_data(["/nowhere", str(tmp_path)]) == "2026c"


def test_a_zone_that_can_no_longer_be_read_is_named() -> None:
    assert levels(times.zones(["Europe/Berlin", "UTC"])) == [Level.OK]
    (found,) = times.zones(["UTC", "Mars/Olympus"])
    assert (found.level, found.seen) == (Level.FAULT, "cannot be read: Mars/Olympus")


ACTIVE = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "ExecStart": "{ path=/bin/sh ; argv[]=/bin/sh start ; ignore_errors=no }",
    "WatchdogUSec": "30s",
    "NeedDaemonReload": "no",
}


@pytest.mark.parametrize(
    ("changed", "wanted", "said"),
    [
        ({}, [Level.OK], "promptd.service is active (running)"),
        ({"ExecStart": "{ path=/opt/gone/promptd ; x }"}, [Level.FAULT, Level.OK], "/opt/gone/promptd"),
        ({"NeedDaemonReload": "yes"}, [Level.WARNING, Level.OK], "has changed"),
        ({"WatchdogUSec": "infinity"}, [Level.WARNING, Level.OK], "nobody watches"),
        ({"UnitFileState": "disabled"}, [Level.WARNING, Level.OK], "next boot"),
        ({"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"}, [Level.FAULT], "78"),
        ({"ActiveState": "inactive", "SubState": "dead"}, [Level.OK], "inactive (dead)"),
        ({"LoadState": "not-found"}, [Level.UNKNOWN], "not-found"),
    ],
)
def test_a_unit_is_judged_by_what_systemd_says_of_it(
    changed: dict[str, str], wanted: list[Level], said: str
) -> None:
    found = list(unit.unit("promptd.service", {**ACTIVE, **changed}, answers=True))

    assert levels(found) == wanted
    assert said in found[0].seen


def test_an_active_unit_that_does_not_answer_is_told_of() -> None:
    assert levels(unit.unit("promptd.service", ACTIVE, answers=False)) == [Level.WARNING]
    assert levels(unit.unit("promptd.service", None, answers=False)) == [Level.UNKNOWN]


@pytest.mark.parametrize(
    ("mode", "level"),
    [(0o700, Level.OK), (0o750, Level.WARNING), (0o755, Level.WARNING), (0o777, Level.FAULT)],
)
def test_the_state_directory_is_its_owners_alone(tmp_path: Path, mode: int, level: Level) -> None:
    tmp_path.chmod(mode)

    assert levels(files.state_directory(tmp_path)) == [level]


def test_a_state_directory_may_be_missing_and_must_not_be_a_file(tmp_path: Path) -> None:
    assert levels(files.state_directory(tmp_path / "later")) == [Level.UNKNOWN]
    (tmp_path / "file").touch()
    assert levels(files.state_directory(tmp_path / "file")) == [Level.FAULT]
    assert levels(files.state_directory(tmp_path / "file" / "below")) == [Level.FAULT]


def test_a_key_that_is_kept_elsewhere_may_have_the_mode_that_its_keeper_gave_it(tmp_path: Path) -> None:
    """Containers keep their secrets so; our own is private, or nothing is begun."""
    path = tmp_path / "secret.key"
    path.touch(0o600)
    reference = SecretReference("file", str(path))

    def judged(reference: SecretReference, state_dir: Path, **environ: str) -> list[Level]:
        return levels(files.key(reference, state_dir, secret_files=SecretFiles(), environ=environ))

    assert judged(reference, tmp_path) == [Level.OK]
    path.chmod(0o444)
    assert judged(reference, tmp_path) == [Level.FAULT]
    assert judged(reference, tmp_path / "state") == [Level.WARNING]
    assert judged(reference, tmp_path / "state", CREDENTIALS_DIRECTORY=str(tmp_path)) == [Level.OK]
    assert judged(SecretReference("env", "KEY"), tmp_path) == []


def test_a_key_whose_disk_gives_no_answer_is_looked_at_no_further(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o644)
    with hung(path):
        reference, reader = SecretReference("file", str(path)), SecretFiles(0.1)
        (found,) = files.key(reference, tmp_path, secret_files=reader, environ={})
    assert (found.level, f"{path}: its disk gave no answer" in found.seen) == (Level.UNKNOWN, True)


def test_a_control_socket_that_everybody_may_write_to_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.touch(0o660)
    path.chmod(0o660)
    assert levels(files.socket(path)) == [Level.OK]
    path.chmod(0o666)
    assert levels(files.socket(path)) == [Level.FAULT]
    assert levels(files.socket(tmp_path / "none")) == []


def test_backups_are_counted_and_private(tmp_path: Path) -> None:
    path = tmp_path / "promptd.db"
    for number in range(11):
        (tmp_path / f"promptd.db.000{number}.20261121T000000.bak").touch(0o600)
    assert levels(files.backups(path)) == [Level.WARNING]
    for each in list(tmp_path.iterdir())[1:]:
        each.unlink()
    assert levels(files.backups(path)) == [Level.OK]
    next(tmp_path.iterdir()).chmod(0o644)
    assert levels(files.backups(path)) == [Level.FAULT]


def test_keys_in_a_configuration_that_everybody_may_read_are_warned_of(tmp_path: Path) -> None:
    """`no-key-required` is none."""
    config = tmp_path / "promptd.yaml"
    config.touch(0o644)
    config.chmod(0o644)
    key, none = SecretReference("literal", "sk-secret"), SecretReference("literal", "no-key-required")
    named = SecretReference("env", "KEY")

    (found,) = files.configuration([config], [key, named])

    assert levels([found]) == [Level.WARNING]
    assert "systemd:NAME" in found.mend
    assert "chmod" not in found.mend
    assert "sk-secret" not in str(found)
    assert levels(files.configuration([config], [none, named])) == [Level.OK]
    config.chmod(0o640)
    assert levels(files.configuration([config], [key])) == [Level.OK]


def test_a_disk_without_room_is_a_fault(tmp_path: Path) -> None:
    assert levels(ledger.room(tmp_path / "promptd.db")) == [Level.OK]
    assert stat.S_ISDIR(os.stat("/proc").st_mode)
    assert levels(ledger.room(Path("/proc/promptd.db"))) == [Level.FAULT]
