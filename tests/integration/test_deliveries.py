"""The outbox in the ledger: what an end puts into it, who may send it, and what becomes of that."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert, select
from support.claiming import HOURLY
from support.ledger import DAY, HOUR, MINUTE, NOW, SECOND, make_instance, target_of

from jobs.alert import AlertKind, Notice
from jobs.delivery_state import Deliver, DeliverOn, DeliveryState
from jobs.errors import ErrorClass
from jobs.run import ClaimedRun, Consequences, Outcome, Reason, Served, Trigger
from jobs.store import deliveries, instances, ledger, runs
from jobs.store import jobs as job_verbs
from jobs.store.deliveries import Due, Verdict
from jobs.store.ledger import DeliveryFilter
from jobs.store.prune import Keep, prune
from jobs.store.recovery import OnGone, recover
from jobs.store.tables import alerts
from jobs.store.tables import deliveries as table
from jobs.store.tables import runs as run_table

SERVED = Served("zai", "glm-5", "key")
ANSWER = Outcome.succeeded("hello", served=SERVED)
FAILED = Outcome.failed(ErrorClass.AUTH, "refused")
OPS, INBOX = Deliver("ops"), Deliver("inbox")
EACH = tuple(Deliver(str(on), on) for on in DeliverOn)
LONGEST = (MINUTE, 10 * SECOND, HOUR)


@pytest.fixture
def instance(db: Connection) -> int:
    """Return this process's instance; it has seen the job `digest`."""
    job_verbs.see_one(db, "digest", HOURLY, now=NOW)
    return make_instance(db)


def running(db: Connection, instance: int, trigger: Trigger = Trigger.MANUAL) -> ClaimedRun:
    run = runs.add(db, job="digest", trigger=trigger, instance_id=instance, now=NOW)
    return runs.start(db, run, primary=target_of(), instance_id=instance, now=NOW)


def end(
    db: Connection,
    instance: int,
    outcome: Outcome = ANSWER,
    *deliver: Deliver,
    trigger: Trigger = Trigger.MANUAL,
    titled: bool = False,
) -> ClaimedRun:
    """End a new run that is to be delivered so."""
    run = running(db, instance, trigger)
    consequences = Consequences(deliver=deliver or EACH, titled=titled)
    runs.finish(db, run, outcome, now=NOW, consequences=consequences, instance_id=instance)
    return run


def rows(db: Connection) -> list[Any]:
    return list(db.execute(select(table).order_by(table.c.id)))


def targets(db: Connection, run: ClaimedRun) -> list[str]:
    return [row.target for row in rows(db) if row.run_id == run.id]


def due(db: Connection, instance: int, *, now: datetime = NOW, busy: tuple[str, ...] = ()) -> list[Due]:
    found = deliveries.due(db, instance_id=instance, now=now, busy=busy)
    return [each for seen in found.values() for each in seen]


def claim(db: Connection, instance: int, seen: Due, *, now: datetime = NOW) -> Any:
    return deliveries.claim(db, seen, instance_id=instance, until=now + MINUTE, now=now)


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (ANSWER, ["success", "always", "changed"]),
        (replace(ANSWER, silent=True), []),
        (FAILED, ["failure", "always"]),
        (Outcome.timed_out("no answer"), ["failure", "always"]),
        (Outcome.abandoned(), ["failure", "always"]),
        (Outcome.cancelled(Reason.OPERATOR), []),
        (Outcome.skipped(), []),
    ],
    ids=["succeeded", "silent", "failed", "timed out", "abandoned", "cancelled", "skipped"],
)
def test_an_end_is_told_to_those_who_wait_for_such_a_one(
    db: Connection, instance: int, outcome: Outcome, told: list[str]
) -> None:
    assert targets(db, end(db, instance, outcome)) == told


@pytest.mark.parametrize("trigger", [Trigger.DRILL, Trigger.ASK])
@pytest.mark.parametrize("outcome", [ANSWER, FAILED], ids=["succeeded", "failed"])
def test_a_drill_and_a_prompt_of_its_own_are_delivered_nowhere(
    db: Connection, instance: int, trigger: Trigger, outcome: Outcome
) -> None:
    assert targets(db, end(db, instance, outcome, trigger=trigger)) == []


def test_changed_compares_with_the_newest_earlier_answer_that_was_no_drill(
    db: Connection, instance: int
) -> None:
    """A failure in between changes nothing, and neither does a silent answer: nobody was told it."""
    other = Outcome.succeeded("bye", served=SERVED)
    changed = Deliver("ops", DeliverOn.CHANGED)

    ends = [
        end(db, instance, ANSWER, changed),
        end(db, instance, ANSWER, changed),
        end(db, instance, FAILED, changed),
        end(db, instance, other, changed, trigger=Trigger.DRILL),
        end(db, instance, replace(other, silent=True), changed),
        end(db, instance, ANSWER, changed),
        end(db, instance, other, changed),
    ]

    assert [targets(db, run) for run in ends] == [["ops"], [], [], [], [], [], ["ops"]]


def test_changed_compares_with_the_answer_that_was_there_last(db: Connection, instance: int) -> None:
    """A run that began before another may end after it: then its answer is what the receiver shows."""
    changed = Consequences(deliver=(Deliver("ops", DeliverOn.CHANGED),))
    slow, quick, next_one = (running(db, instance) for _ in range(3))

    for after, (run, said) in enumerate(((quick, "A"), (slow, "B"), (next_one, "A"))):
        answer = Outcome.succeeded(said, served=SERVED)
        runs.finish(db, run, answer, now=NOW + after * SECOND, consequences=changed)

    assert [targets(db, run) for run in (quick, slow, next_one)] == [["ops"]] * 3


def test_changed_does_not_compare_with_an_end_of_a_clock_that_was_ahead(
    db: Connection, instance: int
) -> None:
    changed = Consequences(deliver=(Deliver("ops", DeliverOn.CHANGED),))
    ends = [("A", NOW), ("B", NOW + 365 * DAY), ("C", NOW + MINUTE), ("C", NOW + HOUR), ("B", NOW + DAY)]
    told = []

    for said, at in ends:
        run = running(db, instance)
        runs.finish(db, run, Outcome.succeeded(said, served=SERVED), now=at, consequences=changed)
        told.append(targets(db, run))
        prune(db, run.job, Keep(runs=1))

    assert told == [["ops"], ["ops"], ["ops"], [], ["ops"]]


def test_what_was_told_last_is_kept_to_be_compared_with(db: Connection, instance: int) -> None:
    """Also when silent answers came after it, of which more are there than the limits keep."""
    changed = Deliver("ops", DeliverOn.CHANGED)
    told = end(db, instance, ANSWER, changed)
    (sent,) = due(db, instance)
    deliveries.settle(db, claim(db, instance, sent), Verdict.delivered(), now=NOW)
    for _ in range(3):
        end(db, instance, replace(ANSWER, silent=True), changed)

    gone = prune(db, told.job, Keep(runs=2))

    assert gone.runs == 1
    assert targets(db, end(db, instance, ANSWER, changed)) == []


def test_one_target_is_told_once_however_often_it_is_named(db: Connection, instance: int) -> None:
    run = end(db, instance, ANSWER, OPS, Deliver("ops", DeliverOn.ALWAYS), INBOX)

    assert targets(db, run) == ["ops", "inbox"]
    assert len({row.idempotency_key for row in rows(db)}) == 2


def test_an_end_that_is_not_written_is_not_told(db: Connection, instance: int) -> None:
    """The rows are of the transaction that writes the end, and go with it."""
    run = running(db, instance)

    with db.begin_nested() as savepoint:
        runs.finish(db, run, ANSWER, now=NOW, consequences=Consequences(deliver=(OPS,)))
        inside = len(rows(db))
        savepoint.rollback()

    assert (inside, rows(db)) == (1, [])


def test_a_run_that_is_tried_again_has_not_ended(db: Connection, instance: int) -> None:
    again = Outcome.again(ErrorClass.OVERLOADED, "later", not_before=NOW + HOUR)

    runs.requeue(db, running(db, instance), again, not_before=NOW + HOUR, now=NOW)

    assert rows(db) == []


def test_a_job_without_deliveries_costs_its_ends_no_statement(db: Connection, instance: int) -> None:
    said: list[str] = []
    run = running(db, instance)
    event.listen(db, "before_cursor_execute", lambda *seen: said.append(seen[2]))

    runs.finish(db, run, ANSWER, now=NOW, consequences=Consequences())

    assert said
    assert not [each for each in said if "deliveries" in each]


def test_what_waits_for_a_title_goes_when_it_is_there(db: Connection, instance: int) -> None:
    run = end(db, instance, ANSWER, OPS, titled=True)
    before = due(db, instance)

    runs.give_title(db, run, "Hello", now=NOW + SECOND)

    assert before == []
    assert len(due(db, instance, now=NOW + SECOND)) == 1


def test_a_title_that_comes_late_hastens_nothing_that_has_been_tried(db: Connection, instance: int) -> None:
    """Its receiver is in trouble, and is left alone until the next try."""
    run = end(db, instance, ANSWER, OPS, titled=True)
    later = NOW + deliveries.TITLE_WAIT
    claimed = claim(db, instance, *due(db, instance, now=later), now=later)
    deliveries.settle(db, claimed, Verdict.retried("busy", again_at=later + HOUR), now=later)

    runs.give_title(db, run, "Hello", now=later + SECOND)

    (row,) = rows(db)
    assert row.next_attempt_at == later + HOUR


def test_what_waits_for_a_title_goes_after_a_minute_in_any_case(db: Connection, instance: int) -> None:
    end(db, instance, ANSWER, OPS, titled=True)

    assert deliveries.next_due(db, now=NOW) == NOW + deliveries.TITLE_WAIT
    assert len(due(db, instance, now=NOW + deliveries.TITLE_WAIT)) == 1


def test_a_failure_waits_for_no_title(db: Connection, instance: int) -> None:
    end(db, instance, FAILED, Deliver("ops", DeliverOn.FAILURE), titled=True)

    assert len(due(db, instance)) == 1


@pytest.mark.parametrize(
    ("output", "told"), [(None, ["failure"]), ("hello", ["success"])], ids=["abandoned", "succeeded"]
)
def test_the_run_of_a_dead_process_is_delivered_as_it_has_ended(
    db: Connection, instance: int, output: str | None, told: list[str]
) -> None:
    """Nobody seeks a title for it any more."""
    run = running(db, instance)
    kept = {"output": output, "served_provider": "zai", "served_model": "m", "served_credential": "key"}
    db.execute(
        run_table.update().where(run_table.c.id == run.id).values(kept if output else {"output": None})
    )
    instances.stop(db, instance, now=NOW)
    both = (Deliver("success"), Deliver("failure", DeliverOn.FAILURE))
    on_gone = OnGone(consequences=lambda _job: Consequences(deliver=both, titled=True))

    recover(db, instance_id=make_instance(db), now=NOW, on_gone=on_gone)

    assert [(row.target, row.next_attempt_at) for row in rows(db)] == [(told[0], NOW)]


class TestClaiming:
    def test_a_claim_counts_the_attempt_and_names_the_sender(self, db: Connection, instance: int) -> None:
        end(db, instance, ANSWER, OPS)

        claimed = claim(db, instance, *due(db, instance))

        (row,) = rows(db)
        assert (claimed.attempts, claimed.failures, claimed.key) == (1, 0, row.idempotency_key)
        assert (row.attempts, row.sending_by, row.sending_until) == (1, instance, NOW + MINUTE)

    def test_who_comes_second_gets_nothing(self, db: Connection, instance: int) -> None:
        end(db, instance, ANSWER, OPS)
        other = make_instance(db)
        (seen,) = due(db, other)

        assert claim(db, instance, seen)
        assert claim(db, other, seen) is None
        assert due(db, other) == []

    def test_what_a_dead_process_was_sending_is_claimed_again_with_its_key(
        self, db: Connection, instance: int
    ) -> None:
        end(db, instance, ANSWER, OPS)
        dead = make_instance(db)
        first = claim(db, dead, *due(db, dead))
        instances.stop(db, dead, now=NOW)

        second = claim(db, instance, *due(db, instance))

        assert (second.key, second.attempts, second.failures) == (first.key, 2, 0)

    def test_what_is_sent_for_too_long_is_claimed_by_another(self, db: Connection, instance: int) -> None:
        """Its first sender, who may only have been stopped, is not heard any more."""
        end(db, instance, ANSWER, OPS)
        slow = make_instance(db)
        first = claim(db, slow, *due(db, slow))
        later = NOW + MINUTE

        before = due(db, instance, now=later - SECOND)
        second = claim(db, instance, *due(db, instance, now=later), now=later)

        assert before == []
        assert not deliveries.settle(db, first, Verdict.failed("no"), now=later)
        assert deliveries.settle(db, second, Verdict.delivered(), now=later)

    def test_a_process_finds_what_it_has_left_itself(self, db: Connection, instance: int) -> None:
        end(db, instance, ANSWER, OPS)
        claim(db, instance, *due(db, instance))

        assert due(db, instance, busy=("ops",)) == []
        assert len(due(db, instance)) == 1

    def test_what_is_given_back_is_anybodys_at_once(self, db: Connection, instance: int) -> None:
        end(db, instance, ANSWER, OPS)
        other = make_instance(db)
        claim(db, instance, *due(db, instance))

        assert deliveries.give_back(db, instance) == 1
        assert claim(db, other, *due(db, other)).attempts == 2

    def test_one_that_is_given_back_takes_no_other_along(self, db: Connection, instance: int) -> None:
        end(db, instance, ANSWER, OPS, INBOX)
        mine, other = (claim(db, instance, seen) for seen in due(db, instance))

        given = deliveries.give_back(db, instance, only=mine)

        assert given == 1
        assert {row.id: row.sending_by for row in rows(db)} == {mine.id: None, other.id: instance}

    def test_one_that_is_claimed_anew_is_not_given_back_for_its_claim_before(
        self, db: Connection, instance: int
    ) -> None:
        end(db, instance, ANSWER, OPS)
        before = claim(db, instance, *due(db, instance))
        claim(db, instance, *due(db, instance))

        assert deliveries.give_back(db, instance, only=before) == 0

    def test_what_is_known_bounds_what_is_found(self, db: Connection, instance: int) -> None:
        end(db, instance, ANSWER, OPS, INBOX)

        found = deliveries.due(db, instance_id=instance, now=NOW, known=("inbox", "elsewhere"))

        assert list(found) == ["inbox"]

    def test_each_target_gives_a_portion_the_oldest_first(self, db: Connection, instance: int) -> None:
        for _ in range(3):
            end(db, instance, ANSWER, OPS, INBOX)

        found = deliveries.due(db, instance_id=instance, now=NOW, most=2)

        every = [row.id for row in rows(db)]
        assert {name: [each.id for each in seen] for name, seen in found.items()} == {
            "ops": [every[0], every[2]],
            "inbox": [every[1], every[3]],
        }

    def test_only_those_of_one_run_are_asked_for(self, db: Connection, instance: int) -> None:
        end(db, instance, ANSWER, OPS)
        mine = end(db, instance, ANSWER, OPS)

        found = deliveries.due(db, instance_id=instance, now=NOW, run_id=mine.id)

        assert [each.id for each in found["ops"]] == [rows(db)[1].id]


class TestSettling:
    def test_what_has_arrived_is_final(self, db: Connection, instance: int) -> None:
        end(db, instance, ANSWER, OPS)
        claimed = claim(db, instance, *due(db, instance))

        assert deliveries.settle(db, claimed, Verdict.delivered(), now=NOW)

        (row,) = rows(db)
        assert (row.state, row.finished_at, row.sending_by, row.failures) == ("delivered", NOW, None, 0)
        assert not deliveries.settle(db, claimed, Verdict.failed("late"), now=NOW)

    def test_what_has_failed_waits_for_its_next_try(self, db: Connection, instance: int) -> None:
        end(db, instance, ANSWER, OPS)
        claimed = claim(db, instance, *due(db, instance))

        deliveries.settle(db, claimed, Verdict.retried("busy", again_at=NOW + MINUTE), now=NOW)

        (row,) = rows(db)
        assert (row.state, row.failures, row.last_error) == ("pending", 1, "busy")
        assert (due(db, instance), deliveries.next_due(db, now=NOW)) == ([], NOW + MINUTE)
        assert claim(db, instance, *due(db, instance, now=NOW + MINUTE), now=NOW + MINUTE).failures == 1

    def test_a_delivery_changes_nothing_of_its_run(self, db: Connection, instance: int) -> None:
        run = end(db, instance, ANSWER, OPS, INBOX)
        before = ledger.run(db, run.id)

        for seen in due(db, instance):
            claimed = claim(db, instance, seen)
            verdict = Verdict.delivered() if seen.target == "ops" else Verdict.failed("gone")
            deliveries.settle(db, claimed, verdict, now=NOW)

        assert ledger.run(db, run.id) == before


class TestAskingAgain:
    def test_what_has_failed_has_all_its_tries_again_and_the_same_key(
        self, db: Connection, instance: int
    ) -> None:
        end(db, instance, ANSWER, OPS)
        first = claim(db, instance, *due(db, instance))
        deliveries.settle(db, first, Verdict.failed("gone"), now=NOW)

        found = deliveries.failed(db), deliveries.failed(db, target="inbox")
        asked = deliveries.ask_again(db, [first.id], now=NOW + HOUR)

        assert (found, asked) == (([first.id], []), [first.id])
        again = claim(db, instance, *due(db, instance, now=NOW + HOUR), now=NOW + HOUR)
        assert (again.key, again.attempts, again.failures) == (first.key, 2, 0)

    def test_what_waits_is_sent_now_and_what_is_being_sent_or_has_arrived_is_left_alone(
        self, db: Connection, instance: int
    ) -> None:
        end(db, instance, ANSWER, OPS, INBOX, Deliver("hook"))
        waiting, sending, arrived = (claim(db, instance, seen) for seen in due(db, instance))
        deliveries.settle(db, waiting, Verdict.retried("busy", again_at=NOW + DAY), now=NOW)
        deliveries.settle(db, arrived, Verdict.delivered(), now=NOW)

        every = [waiting.id, sending.id, arrived.id]
        assert deliveries.ask_again(db, every, now=NOW + SECOND) == [waiting.id]
        assert len(due(db, instance, now=NOW + SECOND, busy=("inbox",))) == 1


class TestAClockThatWasWrong:
    def test_what_was_written_in_the_future_is_due(self, db: Connection, instance: int) -> None:
        end(db, instance, ANSWER, OPS)
        years_before = NOW - 3650 * DAY

        assert deliveries.pull_in(db, longest=(DAY,), now=years_before) == 1
        assert len(due(db, instance, now=years_before)) == 1

    def test_nothing_waits_longer_than_it_may_after_so_many_failures(
        self, db: Connection, instance: int
    ) -> None:
        """The clock was ahead when each of them failed; where an hour is right it is left alone."""
        for failures in (1, 2, 3):
            run = end(db, instance, ANSWER, OPS)
            for _ in range(failures):
                (seen,) = deliveries.due(db, instance_id=instance, now=NOW, run_id=run.id)["ops"]
                verdict = Verdict.retried("busy", again_at=NOW)
                deliveries.settle(db, claim(db, instance, seen), verdict, now=NOW)
        db.execute(table.update().values(next_attempt_at=NOW + HOUR))

        pulled = deliveries.pull_in(db, longest=LONGEST, now=NOW)

        waits = [row.next_attempt_at - NOW for row in rows(db)]
        assert (pulled, waits) == (1, [10 * SECOND, HOUR, HOUR])


def test_the_list_tells_whose_each_delivery_is(db: Connection, instance: int) -> None:
    run = end(db, instance, ANSWER, OPS)
    alert = {"key": "job_failing:other", "kind": AlertKind.JOB_FAILING, "job": "other", "message": "failing"}
    alert_id = db.execute(
        insert(alerts).values(**alert, opened_at=NOW, told_at=NOW).returning(alerts.c.id)
    ).scalar_one()
    notice = {"alert_id": alert_id, "notice": Notice.OPENED, "subject": "other is failing", "body": "…"}
    pending = {"target": "hook", "state": DeliveryState.PENDING, "created_at": NOW, "next_attempt_at": NOW}
    db.execute(insert(table).values(**notice, **pending, idempotency_key=deliveries.new_key()))

    def listed(wanted: DeliveryFilter) -> list[tuple[str, str]]:
        return [(row["job"], row["target"]) for row in ledger.list_deliveries(db, wanted)]

    assert listed(DeliveryFilter()) == [("other", "hook"), ("digest", "ops")]
    assert listed(DeliveryFilter(job="other")) == [("other", "hook")]
    assert listed(DeliveryFilter(target="ops")) == [("digest", "ops")]
    assert listed(DeliveryFilter(state=DeliveryState.FAILED)) == []
    assert listed(DeliveryFilter(limit=1)) == [("other", "hook")]
    assert [row["run_id"] for row in ledger.deliveries_by_id(db, [rows(db)[0].id, 0])] == [run.id]


def test_what_is_due_is_found_without_reading_what_has_arrived(engine: Engine, kind: str) -> None:
    """A server reads an empty table whole if it may; it is told to do without."""
    explain = "EXPLAIN QUERY PLAN" if kind == "sqlite" else "EXPLAIN"
    said: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *seen: said.append((seen[2], seen[3])))
    with engine.begin() as connection:
        deliveries.due(connection, instance_id=1, now=NOW)
        deliveries.next_due(connection, now=NOW)
        queries = [each for each in said if "deliveries" in each[0]]
        if kind != "sqlite":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plans = [
            " ".join(str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {query}", values))
            for query, values in queries
        ]

    assert len(plans) == 3
    assert all("ix_deliveries_due" in plan for plan in plans), plans


def failed_at(db: Connection, seen: Due, instance: int, again: datetime) -> None:
    """Let a delivery's try fail, and the next one wait until then."""
    claimed = claim(db, instance, seen)
    deliveries.settle(db, claimed, Verdict.retried("refused", again_at=again), now=NOW)


def test_what_has_failed_at_a_target_is_hastened_and_nothing_else_is(db: Connection, instance: int) -> None:
    """It keeps its failures; what waits for a title, and what somebody sends, stays as it is."""
    end(db, instance, ANSWER, OPS, INBOX)
    for each in due(db, instance):
        failed_at(db, each, instance, NOW + HOUR)
    end(db, instance, ANSWER, OPS, titled=True)
    end(db, instance, ANSWER, OPS)
    (sending,) = due(db, instance)
    claim(db, instance, sending)

    assert deliveries.hasten(db, ["ops"], now=NOW + MINUTE / 2) == 1

    assert [(row.target, row.failures, row.next_attempt_at) for row in rows(db)] == [
        ("ops", 1, NOW + MINUTE / 2),
        ("inbox", 1, NOW + HOUR),
        ("ops", 0, NOW + MINUTE),
        ("ops", 0, NOW),
    ]
    assert deliveries.hasten(db, ["ops"], now=NOW + MINUTE / 2) == 0


def test_a_target_is_left_alone_where_something_is_due_and_nobody_sends_or_waits(
    db: Connection, instance: int
) -> None:
    other = make_instance(db)

    def left(*, now: datetime = NOW) -> set[str]:
        return set(deliveries.left_alone(db, ["known"], instance_id=instance, now=now))

    end(db, instance, ANSWER, OPS, INBOX, Deliver("known"))
    end(db, instance, ANSWER, OPS, INBOX)
    assert left() == {"ops", "inbox"}
    first = {each.target: each for each in reversed(due(db, instance))}
    failed_at(db, first["ops"], other, NOW + HOUR)
    claim(db, other, first["inbox"])
    assert left() == set()
    assert left(now=NOW + HOUR) == {"ops", "inbox"}


def test_what_this_process_sends_itself_is_left_alone_by_the_others(db: Connection, instance: int) -> None:
    """It may only be about to write that nobody knows the target."""
    end(db, instance, ANSWER, OPS)
    end(db, instance, ANSWER, OPS)
    claim(db, instance, due(db, instance)[0])

    assert deliveries.left_alone(db, (), instance_id=instance, now=NOW) == {"ops"}
