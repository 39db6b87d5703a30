"""`promptd provider show` and `check`, and the refusals of `drill`, over a real database and loopback."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_cli_ground import CONFIG, KEYS, World

from jobs.errors import ErrorClass
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback
from jobs.store import credentials, ledger
from jobs.store.attempts import Failure

SERVED = """\
state_dir: state
model: zai/glm-5.1
fallback_providers:
  - {{provider: custom, name: house, base_url: "{url}", model: m, api_key: house-key}}
  - {{provider: custom, name: gone, base_url: "http://127.0.0.1:9/v1", model: n, api_key: gone-key}}
providers:
  zai:
    base_url: {url}
    strategy: round_robin
    max_concurrency: 3
    headers: {{x-house: a-value-nobody-may-see}}
    credentials:
      - {{label: main, key: "env:MAIN_KEY"}}
      - {{label: spare, key: "env:SPARE_KEY", quota_group: team}}
    errors:
      - {{name: nap, status: [503, 529], text: asleep, class: overloaded}}
jobs:
  - {{name: digest, schedule: null, prompt: hello}}
  - {{name: other, schedule: null, prompt: hello, model: zai/glm-air}}
"""
MAIN, SPARE = KEYS["MAIN_KEY"], KEYS["SPARE_KEY"]
BALANCE = Failure(ErrorClass.QUOTA_BILLING, "zai/1113", "no balance", code="1113", http_status=429)


@pytest.fixture
def server() -> Iterator[ThreadedLoopback]:
    with ThreadedLoopback() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, server: ThreadedLoopback) -> World:
    """A configuration whose providers answer, but for one."""
    return World(tmp_path, config=SERVED.format(url=server.base_url))


def _fail(world: World, failure: Failure, number: int = 0) -> int:
    with world.ledger() as connection:
        return world.fail(connection, world.begin(connection), failure, number=number)


def _check(world: World, *args: str, code: int = 0) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = world.json("provider-check", "provider", "check", *args, code=code)
    return rows


def test_show_tells_a_providers_row_its_users_and_how_its_credentials_stand(world: World) -> None:
    """In any spelling; of headers only the names."""
    attempt = _fail(world, BALANCE)

    shape = world.json("provider-show", "provider", "show", "Z.AI")
    said = world.run("provider", "show", "glm")

    assert (shape["name"], shape["strategy"], shape["max_concurrency"]) == ("zai", "round_robin", 3)
    assert (shape["auth"], shape["headers"], shape["timeout"]) == (["key"], ["x-house"], 300)
    assert "zhipu" in shape["aliases"]
    assert [each["model"] for each in shape["models"]] == ["glm-5.1", "glm-air"]
    assert shape["models"][1]["used_by"] == ["job other"]
    assert shape["errors"] == [
        {"name": "nap", "class": "overloaded", "origin": "model",
         "when": {"status": [503, 529], "text": "asleep"}}
    ]  # fmt: skip
    assert [each["attempt_id"] for each in shape["credentials"]] == [attempt, None, attempt]
    assert "status 503 or 529; text asleep" in said.out
    assert "credential, group team" in said.out
    assert "a-value-nobody-may-see" not in said.out


def test_show_of_an_unknown_provider_names_near_ones(world: World) -> None:
    said = world.run("provider", "show", "zia")
    assert (said.code, said.out) == (2, "")
    assert "did you mean" in said.err


def test_check_asks_once_with_each_credential_and_says_what_that_proves(
    world: World, server: ThreadedLoopback
) -> None:
    """The key that is refused is marked, by the attempt of the check."""
    server.script(Endpoint.CHAT, Reply.error(401, message="no such key"), key=SPARE)

    main, spare = _check(world, "ZAI", code=1)

    assert [(r.key, r.model) for r in server.requests].count((MAIN, "glm-5.1")) == 1
    assert len(server.requests) == 2
    assert (main["result"], main["class"]) == ("answered", None)
    assert main["proves"].startswith("the key is accepted, and glm-5.1 answered in ")
    assert (spare["result"], spare["class"]) == ("refused", "auth")
    assert spare["proves"] == "the credential is refused: no such key"
    with world.ledger() as connection:
        (mark,) = credentials.all_marks(connection)
        (attempt,) = ledger.attempts_by_id(connection, [mark.attempt_id])
    assert (mark.credential, attempt["purpose"], attempt["run_id"]) == ("spare", "check", None)


def test_check_of_everything_tells_who_is_not_reachable(world: World, server: ThreadedLoopback) -> None:
    """Every provider that a chain names; a server that is busy is not asked a second time."""
    server.script(Endpoint.CHAT, Reply.error(503, message="busy"), key="house-key")

    rows = _check(world, code=1)

    assert [(row["provider"], row["result"], row["class"]) for row in rows] == [
        ("custom:gone", "unreachable", "connection"),
        ("custom:house", "failed", "overloaded"),
        ("zai", "answered", None),
        ("zai", "answered", None),
    ]
    assert len(server.requests) == 3
    said = world.run("provider", "check", "custom:house")
    assert "reached, but not answered: busy" in said.out


def test_a_success_opens_what_was_closed_for_a_time(world: World) -> None:
    """A top-up can come at any time; a check asks all the same, and both kinds of mark are lifted."""
    _fail(world, BALANCE)
    assert [row["result"] for row in _check(world, "zai")] == ["answered", "answered"]
    with world.ledger() as connection:
        assert credentials.all_marks(connection) == []


def test_what_is_closed_for_good_or_cannot_be_read_is_not_asked(
    world: World, server: ThreadedLoopback
) -> None:
    _fail(world, Failure(ErrorClass.AUTH_DEAD, "zai/leaked", "leaked", http_status=403))
    del world.environ["SPARE_KEY"]

    main, spare = _check(world, "zai", code=1)

    assert (main["result"], main["class"], main["seconds"]) == ("closed", "auth_dead", None)
    assert "until a new secret, a login or a reset" in main["proves"]
    assert (spare["result"], spare["proves"]) == ("unreadable", "the variable SPARE_KEY is not set")
    assert server.requests == []


def test_a_server_that_says_nothing_is_given_up_and_asked_once(
    tmp_path: Path, server: ThreadedLoopback
) -> None:
    """By the provider's own timeout here, and after 30 s at the latest; others are asked all the same."""
    config = SERVED.format(url=server.base_url).replace("strategy:", "timeout: 2s\n    strategy:")
    for key in (MAIN, SPARE):
        server.script(Endpoint.CHAT, Reply.text("never").silent(), key=key)

    rows = _check(World(tmp_path, config=config), code=1)

    assert [(row["provider"], row["result"], row["class"]) for row in rows] == [
        ("custom:gone", "unreachable", "connection"),
        ("custom:house", "answered", None),
        ("zai", "unreachable", "timeout"),
        ("zai", "unreachable", "timeout"),
    ]
    assert all(2 <= row["seconds"] < 30 for row in rows[2:])
    assert len(server.requests) == 3


def test_a_model_is_the_configurations_first_or_the_one_that_is_given(
    world: World, server: ThreadedLoopback
) -> None:
    _check(world, "zai", "--model", "glm-mini")
    assert {request.model for request in server.requests} == {"glm-mini"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("provider", "check", "groq"), "the configuration uses no model of groq; give --model"),
        (("provider", "check", "--model", "m"), "--model needs the name of a provider"),
        (("provider", "check", "azure", "--model", "m"), "azure has no address of its own"),
        (("provider", "check", "zia"), "did you mean"),
        (("drill", "digest"), "Missing option '--fail'"),
        (("drill", "digest", "--fail", "zai"), "is not PROVIDER=CLASS"),
        (("drill", "digest", "--fail", "zai=quota_biling"), "did you mean quota_billing"),
        (("drill", "digest", "--fail", "zia=auth"), "did you mean"),
        (("drill", "digest", "--fail", "groq=auth"), "asks groq; it asks openai-codex, zai, custom:house"),
        (("drill", "digest", "--fail", "zai=auth", "--fail", "GLM=timeout"), "both auth and timeout"),
        (("drill", "digset", "--fail", "zai=auth"), "did you mean digest?"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_usage_error_that_says_what_can(
    tmp_path: Path, args: tuple[str, ...], said: str
) -> None:
    found = World(tmp_path, config=CONFIG).run(*args)
    assert (found.code, found.out) == (2, ""), found
    assert said in found.err
