"""`promptd delivery list`, `retry` and `test` over a real ledger and real targets."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, update
from test_cli_ground import CONFIG, World

from jobs import clock
from jobs.alert import AlertKind, Notice
from jobs.delivery_state import Deliver
from jobs.run import Consequences, Outcome, Served
from jobs.store import deliveries, runs
from jobs.store.deliveries import Verdict
from jobs.store.tables import alerts
from jobs.store.tables import deliveries as table
from scheduler.cli.words import instant, moment

TARGETS = """
delivery:
  inbox: {file: "out/{job}.txt"}
  lost: {command: ["sh", "-c", "echo the printer is on fire >&2; exit 3"]}
"""
HOUR = timedelta(hours=1)
ANSWER = Outcome.succeeded("All is well.", served=Served("zai", "glm", "main"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A digest that has arrived in one place and failed for good in another, and an alert that waits."""
    made = World(tmp_path, config=CONFIG + TARGETS)
    with made.ledger() as connection:
        run = made.begin(connection)
        consequences = Consequences(deliver=(Deliver("inbox"), Deliver("lost")))
        runs.finish(connection, run, ANSWER, now=made.now, consequences=consequences)
        found = deliveries.due(connection, instance_id=1, now=made.now)
        for name, verdict in (("inbox", Verdict.delivered()), ("lost", Verdict.failed("it is on fire"))):
            claimed = deliveries.claim(
                connection, found[name][0], instance_id=1, until=made.now, now=made.now
            )
            assert claimed is not None
            deliveries.settle(connection, claimed, verdict, now=made.now)
        about = {"key": "job_failing:tick", "kind": AlertKind.JOB_FAILING, "job": "tick", "message": "fails"}
        times = {"opened_at": made.now, "told_at": made.now}
        connection.execute(insert(alerts).values(**about, **times))
        notice = {"alert_id": 1, "notice": Notice.OPENED, "subject": "tick fails", "body": "…"}
        pending = {"target": "inbox", "state": "pending", "created_at": made.now, "next_attempt_at": made.now}
        connection.execute(insert(table).values(**notice, **pending, idempotency_key="k"))
    return made


def test_the_list_tells_what_went_where_newest_first(world: World) -> None:
    listed = world.json("delivery-list", "delivery", "list")

    assert [(each["id"], each["run_id"], each["notice"], each["job"]) for each in listed] == [
        (3, None, "opened", "tick"),
        (2, 1, None, "digest"),
        (1, 1, None, "digest"),
    ]
    assert [each["state"] for each in listed] == ["pending", "failed", "delivered"]
    assert listed[1]["last_error"] == "it is on fire"


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--state", "failed"], [2]),
        (["--job", "tick"], [3]),
        (["--target", "inbox"], [3, 1]),
        (["--limit", "1"], [3]),
        (["--target", "nobody"], []),
    ],
)
def test_the_list_is_filtered(world: World, options: list[str], ids: list[int]) -> None:
    assert [each["id"] for each in world.json("delivery-list", "delivery", "list", *options)] == ids


def test_the_list_says_the_same_in_words(world: World) -> None:
    said = world.run("delivery", "list")

    assert said.code == 0
    for part in ("alert 1 opened", "run 1", "digest", "lost", "failed", "it is on fire"):
        assert part in said.out


def test_what_is_being_sent_says_so_until_nobody_can_be_sending_it(world: World) -> None:
    """It stays pending for programs, which find beside it until when it is being sent."""
    now = clock.utcnow().replace(microsecond=0)
    with world.ledger() as connection:
        claim = (
            update(table)
            .where(table.c.run_id == 1)
            .values(state="pending", finished_at=None, next_attempt_at=now - HOUR, sending_by=1)
        )
        connection.execute(claim.where(table.c.id == 1).values(sending_until=now + HOUR))
        connection.execute(claim.where(table.c.id == 2).values(sending_until=now - HOUR / 2))

    _, dead, sent = world.json("delivery-list", "delivery", "list")
    lines = [world.run("delivery", "list").out.splitlines(), world.run("run", "show", "1").out.splitlines()]

    assert (sent["state"], sent["sending_until"]) == ("pending", instant(now + HOUR))
    assert (dead["state"], dead["sending_until"]) == ("pending", instant(now - HOUR / 2))
    for said in lines:
        inbox = next(line for line in said if "inbox" in line and "tick" not in line)
        lost = next(line for line in said if "lost" in line)
        assert f"sending until {moment(now + HOUR)}" in inbox
        assert moment(now - HOUR) not in inbox
        assert "pending" in lost
        assert moment(now - HOUR) in lost


@pytest.mark.parametrize("words", [["2"], ["--failed"], ["--failed", "--target", "lost"]])
def test_what_has_failed_is_asked_for_again(world: World, words: list[str]) -> None:
    (asked,) = world.json("delivery-retry", "delivery", "retry", *words)

    assert (asked["id"], asked["state"], asked["attempts"]) == (2, "pending", 1)
    assert world.json("run-show", "run", "show", "1")["deliveries"][1]["state"] == "pending"


def test_nothing_is_asked_for_again_where_nothing_has_failed_there(world: World) -> None:
    said = world.run("delivery", "retry", "--failed", "--target", "inbox")

    assert (said.code, said.out.strip()) == (0, "no delivery has failed for good")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["1"], "has arrived"),
        (["2", "99"], "no delivery 99"),
        ([], "name deliveries by their ids, or give --failed"),
        (["2", "--failed"], "name deliveries by their ids, or give --failed"),
        (["2", "--target", "lost"], "--target belongs to --failed"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_and_nothing_changes(
    world: World, words: list[str], why: str
) -> None:
    said = world.run("delivery", "retry", *words)

    assert (said.code, why in said.err) == (2, True), said.err
    assert len(world.json("delivery-list", "delivery", "list", "--state", "failed")) == 1


def test_a_test_message_arrives_and_leaves_no_row(world: World) -> None:
    tried = world.json("delivery-test", "delivery", "test", "inbox")

    assert (tried["delivered"], tried["kind"], tried["error"]) == (True, "file", None)
    assert len(world.json("delivery-list", "delivery", "list")) == 3
    (written,) = (world.settings.state_dir / "out").iterdir()
    assert "inbox" in written.read_text()


def test_a_test_message_that_does_not_arrive_says_why(world: World) -> None:
    tried = world.json("delivery-test", "delivery", "test", "lost", code=1)
    said = world.run("delivery", "test", "lost")

    assert (tried["delivered"], tried["kind"], tried["permanent"]) == (False, "command", False)
    assert "the printer is on fire" in tried["error"]
    assert (said.code, "not delivered to lost" in said.out) == (1, True)


def test_a_target_that_is_not_there_is_named_with_those_that_are(world: World) -> None:
    said = world.run("delivery", "test", "inbux")

    assert (said.code, "inbox, lost" in said.err) == (2, True)
