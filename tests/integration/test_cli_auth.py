"""`promptd auth list`, `why` and `reset` over real marks."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from test_cli_ground import CONFIG, KEY, KEYS, World

from jobs.errors import ErrorClass
from jobs.providers.answer import WaitHint
from jobs.store import credentials
from jobs.store.attempts import Failure

BALANCE = Failure(ErrorClass.QUOTA_BILLING, "zai/1113", "no balance", code="1113", http_status=429)
LIMIT = Failure(ErrorClass.RATE_LIMIT, "*/status-429", "slow down", http_status=429)
DENIED = Failure(ErrorClass.AUTH, "*/status-401", "who are you", http_status=401)
BUSY = Failure(ErrorClass.OVERLOADED, "*/status-503", "busy", http_status=503)


def _rows(world: World, **wanted: str) -> list[dict[str, Any]]:
    rows = world.json("auth-list", "auth", "list")
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _fail(world: World, failure: Failure, wait: WaitHint | None = None, number: int = 1) -> int:
    with world.ledger() as connection:
        return world.fail(connection, world.begin(connection), failure, wait=wait, number=number)


def test_a_fallbacks_empty_balance_stands_on_its_own_credential_and_no_other(tmp_path: Path) -> None:
    """S13: zai is exhausted with its code and attempt; the Codex login is dead for its own reason."""
    world = World(tmp_path)
    with world.ledger() as connection:
        world.log_in(connection)
        run = world.begin(connection)
        dead = world.refuse_refresh(connection, run)
        empty = world.fail(connection, run, BALANCE)

    (codex,) = _rows(world, provider="openai-codex")
    assert (codex["status"], codex["reason"], codex["code"]) == ("dead", "auth_dead", "invalid_grant")
    assert (codex["attempt_id"], codex["until"]) == (dead, None)
    assert codex["expires_at"] is not None
    assert f"dead: invalid_grant, attempt {dead}, until a login or a reset" in world.run("auth", "list").out
    (main,) = _rows(world, provider="zai", label="main", scope="credential")
    assert (main["status"], main["reason"], main["code"]) == ("exhausted", "quota_billing", "1113")
    assert (main["attempt_id"], main["until_source"]) == (empty, "default")
    (group,) = _rows(world, provider="zai", scope="group")
    assert (group["label"], group["attempt_id"]) == ("main", empty)
    (spare,) = _rows(world, label="spare")
    assert (spare["status"], spare["reason"]) == ("ok", None)


def test_a_rate_limit_is_a_row_of_its_model_and_leaves_the_credential_ok(tmp_path: Path) -> None:
    """The credential is still good for other models."""
    world = World(tmp_path)
    _fail(world, LIMIT, WaitHint(world.now + timedelta(minutes=21, seconds=46), "retry-after"))
    (credential,) = _rows(world, label="main", scope="credential")
    (limited,) = _rows(world, label="main", scope="group_model")
    assert credential["status"] == "ok"
    assert (limited["model"], limited["until_source"]) == ("glm-5.1", "retry-after")
    assert "closed for 21 min" in world.run("auth", "list").out
    assert "from the retry-after header" in world.run("auth", "list").out


def test_an_endpoint_that_is_overloaded_has_a_row_without_a_label(tmp_path: Path) -> None:
    """What is closed is the address, not a key."""
    world = World(tmp_path)
    _fail(world, BUSY, number=2)
    (row,) = _rows(world, scope="endpoint_model")
    assert (row["provider"], row["label"], row["source"]) == (
        "custom:house",
        None,
        "http://localhost:8080/v1",
    )


def test_two_refusals_in_a_row_make_a_key_invalid_until_it_changes(tmp_path: Path) -> None:
    """A new secret is a new beginning."""
    world = World(tmp_path)
    _fail(world, DENIED)
    world.now += timedelta(minutes=6)
    _fail(world, DENIED)
    (refused,) = _rows(world, label="main")
    assert (refused["status"], refused["until"]) == ("invalid", None)
    assert "invalid: auth, attempt 2, until a new key or a reset" in world.run("auth", "list").out
    world.environ["MAIN_KEY"] = "a-new-key-altogether"
    (mended,) = _rows(world, label="main")
    assert mended["status"] == "ok"
    assert mended["fingerprint"] != refused["fingerprint"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(1, "shortened since there is no other credential, attempt 1"), (90, "ok")]
)
def test_the_only_credential_of_a_provider_is_closed_for_a_minute_at_most(
    tmp_path: Path, seconds: int, said: str
) -> None:
    """Default times are cut where nobody can take over; the rule is applied when read, and said."""
    one = CONFIG.replace('      - {label: spare, key: "env:SPARE_KEY"}\n', "")
    world = World(tmp_path, config=one)
    world.now -= timedelta(seconds=seconds)
    _fail(world, DENIED)
    (row,) = _rows(world, label="main")
    assert row["status"] == ("ok" if said == "ok" else "exhausted")
    assert said in world.run("auth", "list").out


def test_a_secret_that_cannot_be_read_is_said_with_what_to_do(tmp_path: Path) -> None:
    """Unreadable is a status; the words name the variable."""
    world = World(tmp_path, environ={"MAIN_KEY": KEY})
    (row,) = _rows(world, label="spare")
    assert (row["status"], row["reason"]) == ("unreadable", "config_error")
    assert "the variable SPARE_KEY is not set" in world.run("auth", "list").out


def test_why_prints_the_attempts_behind_the_marks_in_any_spelling(tmp_path: Path) -> None:
    """S13 and S14: the attempt's own status, code and message."""
    world = World(tmp_path)
    attempt = _fail(world, BALANCE)
    for spelled in ("zai", "Z.AI", "glm", "Z_AI"):
        (why,) = world.json("auth-why", "auth", "why", spelled)
        assert (why["attempt"]["id"], why["attempt"]["http_status"]) == (attempt, 429)
        assert why["run_id"] == 1
    assert "no balance" in world.run("auth", "why", "zai", "main").out
    assert world.json("auth-why", "auth", "why", "zai", "spare") == []
    assert "nothing stands against openai-codex" in world.run("auth", "why", "codex").out


def test_reset_lifts_the_marks_of_a_provider_and_says_how_many(tmp_path: Path) -> None:
    """S16: at once, whatever made them."""
    world = World(tmp_path)
    _fail(world, BALANCE)
    assert world.json("auth-reset", "auth", "reset", "GLM") == {
        "provider": "zai",
        "labels": ["main", "spare"],
        "lifted": 1,
    }
    assert [row["status"] for row in _rows(world, provider="zai")] == ["ok", "ok"]
    assert world.run("auth", "reset", "zai").out == "zai: 0 marks lifted\n"


def test_reset_of_one_credential_leaves_the_other_closed(tmp_path: Path) -> None:
    """A label narrows it."""
    world = World(tmp_path)
    _fail(world, DENIED)
    assert world.run("auth", "reset", "zai", "spare").out == "zai spare: 0 marks lifted\n"
    assert world.run("auth", "reset", "zai", "main").out == "zai main: 1 mark lifted\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("why", "zia"), "did you mean"),
        (("reset", "zai", "third"), "it has main, spare"),
        (("why", "zai", "third"), "it has main, spare"),
    ],
)
def test_what_is_not_there_is_a_usage_error(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    """The line names what there is."""
    found = World(tmp_path).run("auth", *args)
    assert (found.code, found.out) == (2, "")
    assert said in found.err


def test_looking_writes_nothing_and_tells_no_secret(tmp_path: Path) -> None:
    """Reading commands leave no row behind."""
    world = World(tmp_path)
    for args in (("auth", "list"), ("auth", "why", "zai"), ("check",), ("status",), ("provider", "list")):
        for form in ((), ("--json",)):
            said = world.run(*args, *form)
            assert not any(secret in said.out + said.err for secret in KEYS.values())
    with world.ledger() as connection:
        assert credentials.known(connection) == {}


def test_a_secret_key_that_cannot_be_read_costs_fingerprints_and_nothing_else(tmp_path: Path) -> None:
    """The marks are still told; those of the last seen fingerprint count."""
    world = World(tmp_path)
    _fail(world, DENIED)
    (seen,) = _rows(world, label="main")
    (world.settings.state_dir / "secret.key").write_text("short")
    found = world.run("auth", "list", "--json")
    assert "secret_key cannot be read here" in found.err
    (row,) = _rows(world, label="main")
    assert (row["status"], row["fingerprint"]) == ("exhausted", seen["fingerprint"])
