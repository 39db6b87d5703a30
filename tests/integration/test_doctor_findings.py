"""`promptd doctor` as a command: with a configuration that is broken, without one, and it changes nothing."""

import hashlib
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, update
from test_cli_ground import CONFIG, KEYS, World

from jobs.store.tables import jobs
from scheduler.doctor import ledger

KEPT = {**KEYS, "SSL_CERT_FILE": ""}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A house in which everything can be read."""
    config = CONFIG.replace("model: openai-codex/gpt-5.5\n", "").replace("  - zai/glm-5.1\n", "")
    made = World(tmp_path, config="model: zai/glm-5.1\n" + config, environ=KEPT)
    tmp_path.chmod(0o700)
    return made


def report(world: World, *, code: int = 0) -> dict[str, list[Any]]:
    """Return the findings by name."""
    told = world.json("doctor", "doctor", code=code)
    assert told["ok"] == (code == 0)
    found: dict[str, list[Any]] = {}
    for each in told["findings"]:
        found.setdefault(each["name"], []).append(each)
    return found


def content(directory: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in directory.rglob("*")
        if path.is_file() and path.stat().st_size
    }


def test_a_sound_house_has_no_fault_and_is_left_as_it_is(world: World) -> None:
    before = content(world.home)

    found = report(world)

    assert {each["level"] for rows in found.values() for each in rows} <= {"ok", "warning", "unknown"}
    for name in ("configuration", "python", "libraries", "database files", "secret key", "database",
                 "integrity", "write-ahead log", "ledger's time", "secrets", "zones"):  # fmt: skip
        assert [each["level"] for each in found[name]] == ["ok"], name
    assert {each["seen_by"] for rows in found.values() for each in rows} == {"shell"}
    assert content(world.home) == before


def test_a_fault_is_told_with_its_mend_and_exit_code_1(world: World) -> None:
    path = world.settings.state_dir / "promptd.db"
    path.chmod(0o604)

    said = world.run("doctor")

    assert said.code == 1
    assert f"→ run `chmod 600 {path}`" in said.out
    assert said.out.splitlines()[-1].startswith("1 faults, ")


def test_a_broken_configuration_is_one_fault_and_the_rest_is_looked_at(world: World) -> None:
    world.file.write_text("state_dir: state\nnonsense: true\njobs: 7\n")
    (world.settings.state_dir).chmod(0o777)

    found = report(world, code=1)

    assert "promptd check" in found["configuration"][0]["mend"]
    assert "(and 1 more)" in found["configuration"][0]["seen"]
    assert found["state directory"][0]["level"] == "fault"
    assert found["database"][0]["level"] == "unknown"
    assert found["python"][0]["level"] == "ok"


def test_urls_and_headers_that_are_no_secrets_may_stand_where_everybody_reads_them(world: World) -> None:
    hook = '{webhook: "https://example.org/in", headers: {X-Team: ops%s}}'
    alone = world.file.read_text()
    world.file.write_text(f"{alone}delivery:\n  hook: {hook % ''}\n")
    world.file.chmod(0o644)
    quiet = report(world)
    world.file.write_text(f"{alone}delivery:\n  hook: {hook % ', Authorization: Bearer 0123456789'}\n")

    warned = report(world)

    assert [each["level"] for each in quiet["configuration"] + quiet["configuration files"]] == ["ok", "ok"]
    assert [each["level"] for each in warned["configuration"]] == ["warning"]
    assert "seems to hold a secret" in warned["configuration"][0]["seen"]
    assert "0123456789" not in str(warned)


def test_without_any_configuration_the_machine_is_looked_at(tmp_path: Path) -> None:
    world = World(tmp_path, environ=KEPT, migrated=False)
    world.file.unlink()

    found = report(world, code=1)

    assert found["configuration"][0]["level"] == "fault"
    assert found["clock"][0]["level"] in ("ok", "warning", "unknown")


def test_before_the_first_start_nothing_of_the_state_is_a_fault_and_nothing_is_made(tmp_path: Path) -> None:
    config, environ = "state_dir: state\nmodel: zai/glm-5.1\n", {**KEPT, "ZAI_API_KEY": "k" * 9}
    world = World(tmp_path, config=config, environ=environ, migrated=False)

    found = report(world)

    assert found["database"][0]["level"] == "unknown"
    assert [path.name for path in tmp_path.iterdir()] == ["promptd.yaml"]


def test_secrets_that_cannot_be_read_are_named_and_not_shown(tmp_path: Path) -> None:
    world = World(tmp_path, environ={**KEPT, "SPARE_KEY": ""})

    found = report(world, code=1)

    assert any("SPARE_KEY" in each["seen"] for each in found["secrets"])
    assert KEYS["MAIN_KEY"] not in str(found)


def test_the_ledger_knows_of_a_clock_that_has_gone_back_and_of_one_that_was_ahead(world: World) -> None:
    with world.ledger() as connection:
        world.see_jobs(connection)
        world.begin(connection)
        connection.exec_driver_sql("UPDATE instances SET heartbeat_at = '2090-01-01 00:00:00.000000'")
        far = datetime(2091, 6, 15, 12, tzinfo=UTC)
        connection.execute(update(jobs).where(jobs.c.name == "tick").values(cursor=far))

    behind, ahead = report(world, code=1)["ledger's time"]

    assert "2090-01-01" in behind["seen"]
    assert ahead["seen"].startswith("tick is decided up to 2091-06-15")


@pytest.mark.parametrize(("revision", "mend"), [("0002", "promptd db upgrade"), ("9999", "newer promptd")])
def test_a_database_of_another_revision_is_a_fault_and_is_not_migrated(
    world: World, revision: str, mend: str
) -> None:
    path = world.settings.state_dir / "promptd.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute(f"UPDATE alembic_version SET version_num = '{revision}'")

    found = report(world, code=1)

    assert mend in found["database"][0]["mend"]
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == (revision,)


def test_a_damaged_database_is_a_fault_and_no_bug(world: World) -> None:
    path = world.settings.state_dir / "promptd.db"
    path.write_bytes(b"\xff" * 20_000)

    assert any("not a database" in each["seen"] for each in report(world, code=1)["database"])


def test_a_server_is_looked_at_without_writing(shared: Engine, tmp_path: Path) -> None:
    url = shared.url.render_as_string(hide_password=False)
    world = World(
        tmp_path,
        config=f"database: {url}\nstate_dir: state\nmodel: zai/glm-5.1\n",
        environ={**KEPT, "ZAI_API_KEY": "k" * 9},
        migrated=False,
    )

    found = report(world)

    assert "PostgreSQL" in found["server"][0]["seen"]
    assert found["database"][0]["level"] == "ok"
    assert str(shared.url.password) not in str(found)


def test_a_look_at_a_database_can_write_nothing(world: World) -> None:
    with (
        ledger.looking(world.settings.database) as connection,
        pytest.raises(Exception, match="readonly database"),
    ):
        connection.exec_driver_sql("DELETE FROM alembic_version")


def test_check_says_that_a_state_directory_is_a_file(tmp_path: Path) -> None:
    """`promptd start` would say it too, when it is too late."""
    (tmp_path / "taken").touch()
    for place in ("taken", "taken/below"):
        world = World(tmp_path, config=f"state_dir: {place}\nmodel: zai/glm-5.1\n", migrated=False)
        said = world.run("check")
        assert (said.code, "taken is no directory; name another one" in said.err) == (78, True), said


def test_what_the_daemon_is_asked_for_is_no_command_for_people(world: World) -> None:
    assert "doctor-inside" not in world.run("--help").out
    assert world.run("doctor-inside").out.startswith("[{")
