"""`promptd run list`, `show` and `output` over a real ledger."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert
from support.claiming import claim
from test_cli_ground import World

from jobs.errors import ErrorClass
from jobs.run import Outcome, RunState, Trigger
from jobs.store import instances, runs
from jobs.store.attempts import Failure
from jobs.store.claims import NewRun
from jobs.store.tables import deliveries

BALANCE = Failure(
    ErrorClass.QUOTA_BILLING, "zai/1113", "Insufficient balance", code="1113", http_status=429, latency=0.1
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A digest that fell back from a dead login over an empty balance to the house's own model."""
    made = World(tmp_path)
    with made.ledger() as connection:
        made.log_in(connection)
        run = made.begin(connection)
        made.refuse_refresh(connection, run)
        made.fail(connection, run, BALANCE)
        made.succeed(connection, run, number=2, answer="Good morning.\n")
        failed = made.begin(connection, "tick")
        made.fail(connection, failed, BALANCE)
        runs.finish(connection, failed, Outcome.failed(ErrorClass.AUTH_DEAD, "nobody answers"), now=made.now)
        connection.execute(
            insert(deliveries).values(
                run_id=run.id,
                target="ops",
                state="pending",
                idempotency_key="k",
                created_at=made.now,
                next_attempt_at=made.now,
            )
        )
    return made


def test_show_tells_requested_and_served_target_and_every_attempt(world: World) -> None:
    """A fallback is to be seen whole: who was asked, who answered, and why the first was left."""
    shown = world.json("run-show", "run", "show", "1")
    assert shown["requested"] == {"provider": "openai-codex", "model": "gpt-5.5"}
    assert shown["served"] == {"provider": "custom:house", "model": "m", "credential": "key"}
    assert (shown["fallback"], shown["fallback_reason"]) == (True, "auth_dead")
    assert [(a["ordinal"], a["purpose"], a["code"]) for a in shown["attempts"]] == [
        (1, "refresh", "invalid_grant"),
        (2, "main", "1113"),
        (3, "main", None),
    ]
    assert shown["attempts"][1]["waited"] == 1.5
    assert shown["deliveries"][0]["target"] == "ops"
    assert shown["finished_at"].endswith("Z")


def test_show_says_the_same_in_words(world: World) -> None:
    """People read facts, a table of attempts, deliveries, and the output."""
    said = world.run("run", "show", "1")
    assert said.code == 0
    for part in ("openai-codex/gpt-5.5", "custom:house/m, credential key", "yes, because of auth_dead"):
        assert part in said.out
    for part in ("invalid_grant", "Insufficient balance", "1.5 s: backoff", "ops", "Good morning."):
        assert part in said.out


def test_list_is_newest_first_and_has_no_attempts(world: World) -> None:
    """A list prints the same objects without attempts."""
    listed = world.json("run-list", "run", "list")
    assert [run["id"] for run in listed] == [2, 1]
    assert listed[0]["error"] == {"class": "auth_dead", "message": "nobody answers"}
    assert listed[1]["deliveries"][0]["state"] == "pending"


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--job", "tick"], [2]),
        (["--state", "succeeded"], [1]),
        (["--provider", "ChatGPT_Codex"], [2, 1]),
        (["--provider", "custom:House"], [1]),
        (["--since", "1h"], [2, 1]),
        (["--since", "2199-01-01"], []),
        (["--limit", "1"], [2]),
    ],
)
def test_list_filters(world: World, options: list[str], ids: list[int]) -> None:
    """Job, state, time and provider narrow the list; a provider may be spelled in any way."""
    assert [run["id"] for run in world.json("run-list", "run", "list", *options)] == ids


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--since", "yesterday"], "a duration such as 2h"),
        (["--provider", "opnai"], "did you mean openai"),
        (["--state", "done"], "succeeded"),
        (["--limit", "0"], "0"),
    ],
)
def test_a_filter_that_cannot_be_is_a_usage_error(world: World, options: list[str], said: str) -> None:
    """One line says what would be right, and the exit code is 2."""
    found = world.run("run", "list", *options)
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert said in found.err


def test_output_prints_the_output_and_nothing_else(world: World) -> None:
    """The answer is fit for a pipe."""
    said = world.run("run", "output", "1")
    assert (said.code, said.out.strip(), said.err) == (0, "Good morning.", "")


def test_output_of_a_run_without_one_is_exit_1(world: World) -> None:
    """No output is said, not printed as nothing."""
    said = world.run("run", "output", "2")
    assert (said.code, said.out) == (1, "")
    assert "run 2 (failed) has no output" in said.err


@pytest.mark.parametrize("wanted", ["99", "99999999999999999999999", "seven", "-1"])
def test_a_run_that_is_not_there_is_a_usage_error(world: World, wanted: str) -> None:
    """So is what is no run's id."""
    assert world.run("run", "show", "--", wanted).code == 2


def test_a_row_that_stands_for_many_instants_says_how_many(world: World) -> None:
    """A missed span has no request, no target and no try."""
    with world.ledger() as connection:
        instance = instances.register(connection, kind="daemon", version="1", now=world.now)
        new = NewRun(
            "tick",
            world.now,
            Trigger.CATCH_UP,
            RunState.MISSED,
            "coalesced",
            span_first=world.now - timedelta(hours=1),
            span_count=40,
        )
        claim(connection, instance, new)
    assert world.json("run-show", "run", "show", "3")["requested"] is None
    assert "coalesced ×40" in world.run("run", "list").out
    assert "40 instants" in world.run("run", "show", "3").out
