"""`promptd check`, `provider list`, `config` and `db`: what is wrong, who is known, what holds, and where."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from test_cli_ground import CONFIG, KEY, KEYS, World

READABLE = """\
state_dir: state
model: {provider: custom, base_url: "http://localhost:8080/v1", model: m, api_key: no-key-required}
jobs: [{name: tick, schedule: every 90s, prompt: tick}]
"""


def test_a_sound_configuration_is_exit_0_and_nothing_is_created(tmp_path: Path) -> None:
    """Not even the secret key or the state directory."""
    world = World(tmp_path, config=READABLE, migrated=False)
    checked = world.json("check", "check")
    assert (checked["ok"], checked["jobs"]) == (True, 1)
    assert "everything can be read" in world.run("check").out
    assert [path.name for path in tmp_path.iterdir()] == ["promptd.yaml"]


def test_faults_are_all_told_with_their_lines_and_exit_78(tmp_path: Path) -> None:
    """S3: file, line and key; each on a line of its own."""
    config = CONFIG.replace("zai/glm-5.1", "zia/glm").replace("every 90s", "every now and then")
    world = World(tmp_path, config=config, migrated=False)
    said = world.run("check")
    assert (said.code, said.out) == (78, "")
    lines = said.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{world.file}:") for line in lines)
    told = world.json("check", "check", code=78)
    assert [fault["line"] for fault in told["faults"]] == [5, 14]


def test_a_secret_that_cannot_be_read_is_exit_1(tmp_path: Path) -> None:
    """S3: it is said, and does not count as a fault."""
    world = World(tmp_path, environ={"MAIN_KEY": KEY}, migrated=False)
    told = world.json("check", "check", code=1)
    assert {(each["provider"], each["label"]) for each in told["unreadable"]} == {
        ("openai-codex", "login"),
        ("zai", "spare"),
    }
    assert "unreadable: zai spare: the variable SPARE_KEY is not set" in world.run("check").out


def test_what_deliveries_and_heartbeats_keep_secret_is_read_and_judged(tmp_path: Path) -> None:
    """Apprise itself says whether it knows a service; nothing is sent, and nothing secret is shown."""
    token = "planted-token-Zx81Qq0aBc93"
    config = READABLE.replace("prompt: tick", "prompt: tick, heartbeat: 'env:BEAT'") + (
        "delivery:\n  ops: {apprise: 'env:OPS'}\n  odd: {apprise: 'env:ODD'}\n  mail: {apprise: 'env:MAIL'}\n"
        "  inner: {apprise: 'env:INNER'}\n"
        "  hook: {webhook: 'env:HOOK', secret: 'env:SECRET', headers: {X-Key: 'file:nowhere'}}\n"
    )
    environ = {
        "OPS": f"slakc://{token}",
        "ODD": f"slack://{token}",
        "MAIL": f"mailtos://me:{token}@example.org",
        "INNER": f"json://169.254.169.254/{token}",
        "HOOK": f"ftp://example.org/{token}",
        "BEAT": f"https://hc.example/{token}",
    }
    world = World(tmp_path, config=config, environ=environ, migrated=False)

    told = world.json("check", "check", code=1)

    assert told["targets"] == ["hook", "inner", "mail", "odd", "ops"]
    assert {each["label"]: (each["source"], each["why"].split("; ")[0]) for each in told["unreadable"]} == {
        "delivery.ops.apprise": ("env:OPS", "Apprise knows no service of this scheme"),
        "delivery.odd.apprise": ("env:ODD", "Apprise cannot use this URL"),
        "delivery.inner.apprise": ("env:INNER", "it names an address that is not asked, link-local"),
        "delivery.hook.webhook": ("env:HOOK", "is not a URL"),
        "delivery.hook.secret": ("env:SECRET", "the variable SECRET is not set"),
        "delivery.hook.headers.X-Key": (
            f"file:{tmp_path}/nowhere",
            f"cannot read {tmp_path}/nowhere: No such file or directory",
        ),
    }
    said = world.run("check")
    assert "unreadable: delivery.hook.secret: the variable SECRET is not set" in said.out
    assert "1 jobs, 1 providers and 5 delivery targets are configured; what is named above" in said.out
    assert token not in f"{told}{said.out}{said.err}"


def test_a_secret_key_that_is_too_short_is_a_fault(tmp_path: Path) -> None:
    """The daemon would refuse to start with it."""
    config = READABLE + "secret_key: env:PROMPTD_SECRET\n"
    world = World(tmp_path, config=config, environ={"PROMPTD_SECRET": "too short"}, migrated=False)
    said = world.run("check")
    assert said.code == 78
    assert "secret_key" in said.err
    assert "too short" not in said.err


def test_a_login_counts_as_readable_once_it_is_stored(tmp_path: Path) -> None:
    """The database is asked for logins."""
    world = World(tmp_path)
    with world.ledger() as connection:
        world.log_in(connection)
    assert world.json("check", "check")["unreadable"] == []


def test_providers_are_listed_with_aliases_and_what_can_be_read(tmp_path: Path) -> None:
    """All that are known, and which of them the configuration names."""
    world = World(tmp_path, migrated=False)
    listed = {each["name"]: each for each in world.json("provider-list", "provider", "list")}
    assert listed["zai"]["readable"] is True
    assert "glm" in listed["zai"]["aliases"]
    assert [each["label"] for each in listed["zai"]["credentials"]] == ["main", "spare"]
    assert (listed["openai"]["used"], listed["openai"]["readable"]) == (False, False)
    used = world.json("provider-list", "provider", "list", "--used")
    assert [each["name"] for each in used] == ["custom:house", "openai-codex", "zai"]


def test_config_show_tells_every_value_and_its_place_without_secrets(tmp_path: Path) -> None:
    """Leaves are value and place."""
    world = World(tmp_path, migrated=False)
    shown = world.json("config-show", "config", "show")
    assert shown["timezone"] == {"value": "Europe/Berlin", "from": f"{world.file}:1"}
    said = world.run("config", "show")
    assert "jobs.digest.schedule" in said.out
    assert not any(secret in said.out for secret in KEYS.values())


def test_config_schema_is_a_json_schema_and_needs_no_configuration(tmp_path: Path) -> None:
    """Editors use it before there is a file."""
    world = World(tmp_path, migrated=False)
    world.file.unlink()
    Draft202012Validator.check_schema(json.loads(world.run("config", "schema").out))


def test_db_upgrade_makes_the_tables_once(tmp_path: Path) -> None:
    """A second time there is nothing to do, and no backup is needed."""
    world = World(tmp_path, migrated=False)
    assert world.json("db-current", "db", "current")["revision"] is None
    assert not (tmp_path / "state").exists()
    first = world.json("db-upgrade", "db", "upgrade")
    second = world.json("db-upgrade", "db", "upgrade")
    assert (first["from"], first["changed"]) == (None, True)
    assert (second["changed"], second["backup"]) == (False, None)
    assert world.json("db-current", "db", "current")["current"] is True


@pytest.mark.parametrize("command", [("run", "list"), ("auth", "list"), ("job", "list"), ("job", "next")])
def test_a_database_that_is_not_there_is_read_as_an_empty_one(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """A fresh install answers, and nothing is created by asking."""
    world = World(tmp_path, migrated=False)
    assert world.run(*command, "--json").code == 0
    assert not (tmp_path / "state").exists()
