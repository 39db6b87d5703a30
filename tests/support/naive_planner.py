"""A planner that looks at every instant by itself, in plain lists: the judge of ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from jobs.run import Reason, RunState, Trigger
from scheduler.config.settings import CatchUp
from scheduler.jitter import delay
from scheduler.planner import Policy

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FAR = timedelta(days=400)
Fate = tuple[datetime, RunState, Reason | None, Trigger]


@dataclass(frozen=True)
class Due:
    """An instant, when it falls due, the time to the next one of its timetable, and whether it is paused."""

    instant: datetime
    falls_due: datetime
    room: timedelta
    paused: bool


@dataclass(frozen=True)
class Span:
    """A period as the walk sees it: the instants of its timetable, in order."""

    since: datetime
    until: datetime | None
    paused: bool
    instants: Sequence[datetime]


def owed(spans: Sequence[Span], *, job: str, jitter: timedelta) -> list[Due]:
    """Return everything that the spans owe, in order."""
    found = []
    for span, following in pairwise((*spans, None)):
        assert span is not None
        for instant, later in pairwise((*span.instants, None)):
            if not span.since < instant or (span.until and instant > span.until):
                continue
            room = later - instant if later else FAR
            delayed = instant + delay(job, instant, limit=min(jitter, room))
            interrupted = bool(span.until and delayed > span.until)
            paused = span.paused or (interrupted and following is not None and following.paused)
            falls_due = instant if paused else min(delayed, span.until or delayed)
            found.append(Due(instant, falls_due, room, paused))
    return found


def fates(
    all_owed: Sequence[Due], *, cursor: datetime, now: datetime, watched_since: datetime, policy: Policy
) -> list[Fate]:
    """Return what becomes of each instant after the cursor that a look decides, one by one."""
    todo = []
    for each in all_owed:
        if each.instant > cursor:
            if each.instant > now or each.falls_due > now:
                break
            todo.append(each)
    missed = [each.instant for each in todo if not each.paused and each.falls_due <= watched_since]
    young = [instant for instant in missed if instant > now - 31 * DAY]
    most, left_out = {
        CatchUp.LATEST: (1, Reason.COALESCED),
        CatchUp.ALL: (100, Reason.CATCH_UP_CAP),
        CatchUp.NONE: (0, Reason.CATCH_UP_NONE),
    }[policy.catch_up]
    reasons: dict[datetime, Reason | None] = dict.fromkeys(missed, Reason.WINDOW)
    reasons |= dict.fromkeys(young, left_out) | dict.fromkeys(young[-most:] if most else [])
    found: list[Fate] = []
    at_once = 0
    for each in todo:
        if each.paused:
            found.append((each.instant, RunState.SKIPPED, Reason.PAUSED, Trigger.SCHEDULE))
        elif each.instant in reasons:
            reason = reasons[each.instant]
            state = RunState.MISSED if reason else RunState.QUEUED
            found.append((each.instant, state, reason, Trigger.CATCH_UP))
        elif now - each.falls_due > _grace(each, policy):
            found.append((each.instant, RunState.MISSED, Reason.LATE, Trigger.SCHEDULE))
        elif at_once == 100 and not policy.held:  # the next look goes on from here
            break
        else:
            at_once += 1
            found.append((each.instant, RunState.QUEUED, None, Trigger.SCHEDULE))
    return _spent(_held(found, todo, policy) if policy.held else found, policy.runs_left)


def _grace(due: Due, policy: Policy) -> timedelta:
    return policy.misfire_grace_time or min(max(due.room / 2, 2 * MINUTE), 2 * HOUR)


def _held(found: list[Fate], todo: list[Due], policy: Policy) -> list[Fate]:
    unpaused = [each.instant for each in todo if not each.paused]
    probe = unpaused[-1] if policy.probes and unpaused else None
    return [
        (instant, RunState.SKIPPED, Reason.HELD, trigger)
        if state is RunState.QUEUED and instant != probe
        else (instant, state, reason, trigger)
        for instant, state, reason, trigger in found
    ]


def _spent(found: list[Fate], runs_left: int | None) -> list[Fate]:
    if runs_left is None:
        return found
    starts = [number for number, fate in enumerate(found) if fate[1] is RunState.QUEUED]
    if runs_left == 0:
        return []
    return found[: starts[runs_left - 1] + 1] if len(starts) >= runs_left else found
