"""`promptd explain`: whom a run would ask, and in words why nobody before that one."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from test_cli_ground import CONFIG, KEYS, World

from jobs.errors import ErrorClass
from jobs.providers.answer import WaitHint
from jobs.run import Hold
from jobs.store import credentials, holds
from jobs.store.attempts import Failure
from jobs.store.tables import tokens

BALANCE = Failure(ErrorClass.QUOTA_BILLING, "zai/1113", "no balance", code="1113", http_status=429)
LIMIT = Failure(ErrorClass.RATE_LIMIT, "*/status-429", "slow down", http_status=429)


def _fail(world: World, failure: Failure, *, until: timedelta | None = None, number: int = 1) -> int:
    wait = WaitHint(world.now + until, "retry-after") if until else None
    with world.ledger() as connection:
        return world.fail(connection, world.begin(connection), failure, wait=wait, number=number)


def _explain(world: World, job: str = "digest") -> dict[str, Any]:
    shape: dict[str, Any] = world.json("explain", "explain", job)
    return shape


def _lines(world: World, job: str = "digest") -> list[str]:
    said = world.run("explain", job)
    assert said.code == 0, said
    return [" ".join(line.split()) for line in said.out.splitlines()]


def _log_in(world: World, **columns: object) -> None:
    with world.ledger() as connection:
        world.log_in(connection)
        connection.execute(update(tokens).values(client_id="app", **columns))


def test_a_stale_login_is_refreshed_first(tmp_path: Path) -> None:
    """It is the primary, nothing stands against it, and nobody behind it is reached."""
    world = World(tmp_path)
    _log_in(world)

    shape, lines = _explain(world), _lines(world)

    assert (shape["uses"]["provider"], shape["uses"]["refreshes"]) == ("openai-codex", ["login"])
    assert [each["stands"] for each in shape["targets"]] == ["used", "not_reached", "not_reached"]
    assert lines[0] == (
        "a run of digest now would ask openai-codex/gpt-5.5 with the credential login, "
        "after a refresh of the login login"
    )
    assert "1 openai-codex/gpt-5.5 used login used refreshed first" in lines


def test_what_closes_each_target_and_credential_is_said_with_its_attempt_and_time(tmp_path: Path) -> None:
    """A dead login, an empty balance; the spare key answers, and the target behind it is not reached."""
    world = World(tmp_path)
    with world.ledger() as connection:
        world.log_in(connection)
        dead = world.refuse_refresh(connection, world.begin(connection))
    empty = _fail(world, BALANCE)

    shape, text = _explain(world), "\n".join(_lines(world))

    (login,), (main, spare), () = ([*each["credentials"]] for each in shape["targets"])
    assert shape["uses"]["credentials"] == ["spare"]
    assert (login["status"], login["class"], login["attempt_id"]) == ("dead", "auth_dead", dead)
    assert (main["class"], main["code"], main["until_source"]) == ("quota_billing", "1113", "default")
    assert (main["attempt_id"], main["scope"]) == (empty, "group")
    assert (spare["stands"], shape["targets"][0]["class"]) == ("used", "auth_dead")
    assert f"login closed dead: invalid_grant, attempt {dead}, until a login or a reset" in text
    left = r"closed for (1 h|59 min( \d+ s)?), the default time"  # a slow machine is later here
    assert re.search(f"main closed quota_billing 1113: {left}, attempt {empty}", text)
    assert "3 custom:house/m not reached" in text


def test_a_login_that_cannot_be_refreshed_is_said_to_have_ended(tmp_path: Path) -> None:
    """No request would be made for it: there is nothing to send."""
    world = World(tmp_path)
    _log_in(world, refresh_token=None)

    shape = _explain(world)

    (login,) = shape["targets"][0]["credentials"]
    assert (login["stands"], shape["targets"][0]["class"]) == ("lost", "auth_dead")
    assert "cannot be refreshed" in login["why"]
    assert shape["uses"]["provider"] == "zai"


def test_a_primary_without_a_key_stops_the_chain_and_a_fallback_without_one_does_not(tmp_path: Path) -> None:
    """The rule for configuration errors, and how to change it."""
    world = World(tmp_path)
    assert (_explain(world)["fails"], _explain(world)["uses"]) == ("config_error", None)
    assert "a mistake that no fallback covers up" in _lines(world)[0]

    world.file.write_text(CONFIG + "defaults: {fallback_on: [config_error]}\n")
    assert _explain(world)["uses"]["provider"] == "zai"
    del world.environ["MAIN_KEY"], world.environ["SPARE_KEY"]
    shape = _explain(world)
    assert [each["class"] for each in shape["targets"]] == ["config_error", "config_error", None]
    assert shape["uses"]["provider"] == "custom:house"


ZAI_ALONE = CONFIG + "  - {name: alone, schedule: null, prompt: x, model: zai/glm, fallback: none}\n"


@pytest.mark.parametrize(("minutes", "waits"), [(5, True), (50, False)])
def test_a_closed_chain_is_waited_for_within_the_deadline_and_held_beyond_it(
    tmp_path: Path, minutes: int, waits: bool
) -> None:
    """A job has ten minutes here."""
    config = ZAI_ALONE
    for label in ("main", "spare"):
        config = config.replace(f"label: {label},", f"label: {label}, quota_group: team,")
    world = World(tmp_path, config=config)
    shared = Failure(ErrorClass.QUOTA_WINDOW, "zai/1308", "later", code="1308", http_status=429)
    _fail(world, shared, until=timedelta(minutes=minutes))

    shape, (headline, *_) = _explain(world, "alone"), _lines(world, "alone")

    assert (shape["waits_until"] is not None, shape["fails"]) == (waits, None if waits else "quota_window")
    assert shape["opens_at"] is not None
    if waits:
        assert shape["uses"]["credentials"] == ["main"]
        assert "would wait, since every target is closed, until" in headline
    else:
        assert "would ask nobody and fail with quota_window: zai/glm opens first, at" in headline


def test_where_chance_decides_every_key_that_may_be_taken_is_named(tmp_path: Path) -> None:
    """`strategy: random`."""
    config = ZAI_ALONE.replace("  GLM:\n", "  GLM:\n    strategy: random\n")
    world = World(tmp_path, config=config)

    assert sorted(_explain(world, "alone")["uses"]["credentials"]) == ["main", "spare"]
    assert "the credential one of " in _lines(world, "alone")[0]
    _fail(world, BALANCE)
    assert len(_explain(world, "alone")["uses"]["credentials"]) == 1


def test_a_held_job_is_said_to_be_held_until_when_and_why(tmp_path: Path) -> None:
    """`status` says it too."""
    world = World(tmp_path)
    _log_in(world)
    with world.ledger() as connection:
        run = world.begin(connection)
        hold = Hold(world.now + timedelta(hours=2), "zai/main", "every target is closed")
        holds.hold(connection, run, hold, now=world.now)

    held = _explain(world)["held"]

    assert held["reason"] == "every target is closed"
    assert _lines(world)[0].startswith("digest is held until ")
    (told,) = world.json("status", "status")["held_jobs"]
    assert (told["job"], told["reason"]) == ("digest", "every target is closed")
    assert "every target is closed" in world.run("status").out


def test_explaining_writes_nothing_and_tells_no_secret(tmp_path: Path) -> None:
    """Not even the rows that credentials have."""
    world = World(tmp_path)
    for form in ((), ("--json",)):
        said = world.run("explain", "tick", *form)
        assert not any(secret in said.out + said.err for secret in KEYS.values())
    with world.ledger() as connection:
        assert credentials.known(connection) == {}


def test_without_a_database_nothing_is_closed_and_none_is_made(tmp_path: Path) -> None:
    world = World(tmp_path, config=ZAI_ALONE, migrated=False)
    assert _explain(world, "alone")["uses"]["credentials"] == ["main"]
    assert not (tmp_path / "state").exists()


def test_an_unknown_job_is_a_usage_error_that_names_near_ones(tmp_path: Path) -> None:
    said = World(tmp_path).run("explain", "digset")
    assert (said.code, said.out) == (2, "")
    assert "did you mean digest?" in said.err


def test_a_secret_key_that_cannot_be_read_ends_it_as_it_would_end_a_run(tmp_path: Path) -> None:
    """Marks are made for fingerprints, which nobody can make without it."""
    world = World(tmp_path)
    (world.settings.state_dir / "secret.key").write_text("short")
    said = world.run("explain", "digest")
    assert (said.code, said.out) == (78, "")
    assert "secret_key" in said.err
