"""What processes that are gone have left: settled, or taken up by whoever finds it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from operator import itemgetter
from types import MappingProxyType

from sqlalchemy import Connection, RowMapping, and_, func, select, update

from jobs.attempt import AttemptOutcome, Purpose
from jobs.errors import ErrorClass
from jobs.run import BY_HAND, ClaimedRun, Consequences, Outcome, Reason, RunState, Served, Trigger
from jobs.store import instances as instance_verbs
from jobs.store.attempts import hear_no_more
from jobs.store.runs import Ended, cancel_queued, finish
from jobs.store.tables import attempts, instances, runs

MOST_CRASHES = 5
NO_VERDICTS: Mapping[int, bool] = MappingProxyType({})
_LOOKED_BACK = 1_000
_COLUMNS = (
    *("id", "job", "scheduled_for", "trigger", "state", "tries", "crashes", "vars"),
    *("output", "truncated", "served_provider", "served_model", "served_credential", "fallback"),
    *("parent_id", "started_at", "not_before", "behind", "cancel_requested"),
)


def _none(_job: str) -> Consequences:
    return Consequences()


@dataclass(frozen=True, slots=True)
class OnGone:
    """What jobs want of a run whose process has gone: those in `rerun` try it again.

    The answer of one in `judged` is only good when its process has said so. That of one in `quiet` may be
    silent: nothing is said of it before somebody has judged that.
    """

    rerun: Collection[str] = ()
    judged: Collection[str] = ()
    quiet: Collection[str] = ()
    consequences: Callable[[str], Consequences] = _none


@dataclass(frozen=True, slots=True)
class LeftRun:
    """A run that a dead process had left running, and how it has ended now."""

    run: ClaimedRun
    outcome: Outcome
    ended: Ended


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found: runs that are now ours, and runs that have ended."""

    ours: tuple[ClaimedRun, ...] = ()
    ended: tuple[LeftRun, ...] = ()


def recover(
    connection: Connection,
    *,
    instance_id: int,
    now: datetime,
    on_gone: OnGone = OnGone(),
    silent: Mapping[int, bool] = NO_VERDICTS,
) -> Recovered:
    """Settle what processes that are gone have left; return the queued runs that are now ours.

    A running one whose answer is in its row already has succeeded. Any other ends `abandoned`, since its
    call may have been paid, or waits for another try where its job wants that, a few times at most. A queued
    one has not begun and is taken up, except what a command was to do by hand: nobody waits for it. `silent`
    says of runs that `answered` has found whether they are; one of which it says nothing is left as it is.
    """
    _hear_no_more_of_titles(connection, now=now)
    ours: list[ClaimedRun] = []
    ended: list[LeftRun] = []
    for row in _left(connection, instance_id, now):
        run = _claimed(row)
        if row["state"] == RunState.QUEUED and run.trigger in BY_HAND and row["kind"] == "command":
            cancel_queued(connection, run.id, Reason.SHUTDOWN, now=now)
        elif row["state"] == RunState.QUEUED or (run.job in on_gone.rerun and _may_run_again(row)):
            ours.append(_taken(connection, run, instance_id))
        else:
            outcome = _outcome_of(connection, row, judged=run.job in on_gone.judged)
            if _may_be_silent(outcome, run, on_gone):
                if run.id not in silent:
                    continue
                outcome = replace(outcome, silent=silent[run.id])
            consequences = replace(on_gone.consequences(run.job), titled=False)  # nobody seeks one now
            done = finish(
                connection, run, outcome, now=now, consequences=consequences, instance_id=instance_id
            )
            ended.append(LeftRun(run, outcome, done))
    return Recovered(tuple(ours), tuple(ended))


def answered(
    connection: Connection, *, instance_id: int, now: datetime, on_gone: OnGone
) -> list[tuple[ClaimedRun, Outcome]]:
    """Return the runs that processes which are gone have left with a good answer that may be silent."""
    found = []
    for row in _left(connection, instance_id, now):
        run, outcome = _claimed(row), _outcome_of(connection, row, judged=row["job"] in on_gone.judged)
        if _may_be_silent(outcome, run, on_gone):
            found.append((run, outcome))
    return found


def _may_be_silent(outcome: Outcome, run: ClaimedRun, on_gone: OnGone) -> bool:
    return outcome.state is RunState.SUCCEEDED and run.job in on_gone.quiet


def _outcome_of(connection: Connection, row: RowMapping, *, judged: bool) -> Outcome:
    """Return how a run that was running has ended."""
    if judged or not row["output"]:
        return Outcome.abandoned()
    return Outcome.succeeded(
        row["output"],
        served=Served(row["served_provider"], row["served_model"], row["served_credential"]),
        truncated=row["truncated"],
        fallback=row["fallback"],
        fallback_reason=_why_left(connection, row["id"]) if row["fallback"] else None,
    )


def _why_left(connection: Connection, run_id: int) -> ErrorClass | None:
    """Return the class for which a run's first target was left."""
    found = connection.execute(
        select(attempts.c.error_class)
        .where(
            attempts.c.run_id == run_id,
            attempts.c.target_index == 0,
            attempts.c.purpose == Purpose.MAIN,
            attempts.c.error_class.is_not(None),
        )
        .order_by(attempts.c.ordinal.desc())
        .limit(1)
    ).scalar_one_or_none()
    return ErrorClass(found) if found is not None else None


def _may_run_again(row: RowMapping) -> bool:
    """Say whether a run that was running may have another try: nobody wanted its end, and not for ever."""
    by_hand, wanted = row["trigger"] in BY_HAND, row["cancel_requested"] is None
    return wanted and not by_hand and not row["output"] and row["crashes"] + 1 < MOST_CRASHES


def _left(connection: Connection, instance_id: int, now: datetime) -> list[RowMapping]:
    """Return the open runs of other processes that are gone, oldest first.

    They are put in order here: asked for in order of ids, SQLite would read the whole table.
    """
    owners = select(runs.c.instance_id).where(runs.c.finished_at.is_(None), runs.c.instance_id != instance_id)
    found = connection.execute(
        select(instances.c.id, *_OWNER).where(instances.c.id.in_(owners.distinct()))
    ).mappings()
    gone = [row["id"] for row in found if instance_verbs.is_gone(row, now=now)]
    left = (
        select(*(runs.c[name] for name in _COLUMNS), instances.c.kind)
        .join_from(runs, instances, runs.c.instance_id == instances.c.id)
        .where(runs.c.finished_at.is_(None), runs.c.instance_id.in_(gone))
    )
    return sorted(connection.execute(left).mappings(), key=itemgetter("id")) if gone else []


_OWNER = tuple(instances.c[name] for name in ("host", "pid", "pid_started", "heartbeat_at", "stopped_at"))


def _claimed(row: RowMapping) -> ClaimedRun:
    return ClaimedRun(
        row["id"],
        row["job"],
        row["scheduled_for"],
        Trigger(row["trigger"]),
        tries=row["tries"],
        crashes=row["crashes"],
        vars=row["vars"] or {},
        parent_id=row["parent_id"],
        started_at=row["started_at"],
        not_before=row["not_before"],
        behind=row["behind"],
    )


def _taken(connection: Connection, run: ClaimedRun, instance_id: int) -> ClaimedRun:
    """Own a run from now on; one that was running waits for its next try, and hears no more of this one.

    That try has the job's whole timeout: nobody has worked on the run since its process has gone.
    """
    hear_no_more(connection, attempts.c.run_id == run.id)
    mine = and_(runs.c.id == run.id, runs.c.finished_at.is_(None))
    connection.execute(update(runs).where(mine).values(instance_id=instance_id))
    crashed = connection.execute(
        update(runs)
        .where(mine, runs.c.state == RunState.RUNNING)
        .values(state=RunState.QUEUED, started_at=None, crashes=runs.c.crashes + 1)
    ).rowcount
    return replace(run, crashes=run.crashes + 1, started_at=None) if crashed else run


def _hear_no_more_of_titles(connection: Connection, *, now: datetime) -> None:
    """Settle what processes that are gone had sent for the titles of runs that had ended already.

    Looks at the ledger's newest attempts: every beat of every daemon does.
    """
    newest = select(func.coalesce(func.max(attempts.c.id), 0)).scalar_subquery()
    sent = connection.execute(
        select(attempts.c.id.label("attempt_id"), *_OWNER)
        .join_from(attempts, runs, attempts.c.run_id == runs.c.id)
        .join(instances, runs.c.instance_id == instances.c.id)
        .where(
            attempts.c.id > newest - _LOOKED_BACK,
            attempts.c.outcome == AttemptOutcome.SENT,
            runs.c.finished_at.is_not(None),
        )
    ).mappings()
    orphans = [row["attempt_id"] for row in sent if instance_verbs.is_gone(row, now=now)]
    if orphans:
        hear_no_more(connection, attempts.c.id.in_(orphans))
