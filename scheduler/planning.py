"""Looking at jobs: what is due is planned, claimed in one transaction, and handed to the workers."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from jobs import clock
from jobs.events import RunClaimed, RunDecided
from jobs.run import RunState, Trigger
from jobs.store import claims
from jobs.store import jobs as job_verbs
from jobs.store.claims import Claimed, JobClaim, NewRun
from jobs.store.holds import HeldJob
from jobs.store.jobs import JobState, StoredPeriod
from scheduler.app import App
from scheduler.clock_steps import ClockSteps
from scheduler.config.settings import CatchUp, ScheduledJob
from scheduler.holds import Holds, probes_of
from scheduler.job_bounds import bounds_of
from scheduler.periods import Period
from scheduler.planner import Decision, Plan, Policy, plan
from scheduler.timetable import Timetable
from scheduler.triggers import Schedule
from scheduler.worker_pool import WorkerPool

JOBS_A_BREATH = 200
MOST_ROUNDS = 3
RETRY_AFTER = timedelta(seconds=5)
AHEAD_IS_TOLD = timedelta(seconds=2)
logger = logging.getLogger(__name__)


class Planning:
    """Knows how far every job's instants are decided, and decides those that are due.

    One look at a time: a reload holds `lock` while it exchanges the jobs. `give_way` is told of running runs
    that newer ones replace.
    """

    def __init__(
        self,
        app: App,
        workers: WorkerPool,
        give_way: Callable[[Iterable[int]], None],
        *,
        watched_since: datetime,
    ) -> None:
        self.lock = asyncio.Lock()
        self.holds = Holds(app, due=())
        self._app, self._workers, self._give_way = app, workers, give_way
        self._watched_since = watched_since
        self._jobs: dict[str, ScheduledJob] = {}
        self._states: dict[str, JobState] = {}
        self._keys: dict[str, str | None] = {}
        self._schedules: dict[tuple[str, datetime], Schedule] = {}
        self._strange: set[str] = set()
        self._ahead = self._closed = False
        self._clock_steps = ClockSteps()
        self._clock_was_set = False

    def take(self, app: App, states: Mapping[str, JobState]) -> None:
        """Plan the jobs of a configuration from now on; `states` are what the store knows of them."""
        self._app = app
        self._jobs = {name: job for name, job in app.settings.jobs.items() if job.enabled and job.schedule}
        self._keys = {name: key_of(job) for name, job in app.settings.jobs.items()}
        self._states = dict(states)
        self._schedules.clear()
        self._strange.clear()
        self.holds = Holds(app, due=self._jobs)

    def watch_from(self, moment: datetime) -> None:
        """Judge what falls due after this moment by its grace time: a daemon was up."""
        self._watched_since = moment

    def clock_was_set(self) -> bool:
        """Say whether the clock was set since this was last asked: every job is to be looked at then."""
        self._notice_step()
        was_set, self._clock_was_set = self._clock_was_set, False
        return was_set

    def _notice_step(self) -> None:
        """What the clock jumps over fell due while nobody watched: nothing of it is late."""
        step = self._clock_steps.step()
        if step is None:
            return
        logger.warning("the clock was set %s; what is due is looked at anew", step)
        forward = step.by > timedelta()
        self.watch_from(max(self._watched_since, step.to) if forward else min(self._watched_since, step.to))
        self._clock_was_set = True

    def close(self) -> None:
        """Decide nothing any more: the daemon stops."""
        self._closed = True

    async def refresh(self, names: Iterable[str]) -> list[str]:
        """Read anew how these jobs stand; return those of which that is another than was known."""
        mine = [name for name in names if name in self._jobs]
        async with self.lock:
            known = {name: self._states[name] for name in mine}
            self._states |= await self._app.store.read(job_verbs.states, mine)
        return [name for name, state in known.items() if self._states[name] != state]

    def asleep(self) -> list[str]:
        """Return the jobs that nothing wakes here, but that another process can wake.

        Their schedules have come to their end, or they have another daemon's timetable.
        """
        return [name for name in self._jobs if name in self._strange or self._is_over(name)]

    def _is_over(self, name: str) -> bool:
        state = self._states[name]
        stands = any(period.until is None for period in state.periods)
        return not stands or self._runs_left(name) == 0

    @property
    def names(self) -> list[str]:
        """The jobs that fall due by themselves."""
        return list(self._jobs)

    async def look(self, names: Iterable[str]) -> Mapping[str, datetime | None]:
        """Decide what is due of these jobs; return when each is to be looked at next, None for never."""
        async with self.lock:
            return await self.look_unlocked(names)

    async def look_unlocked(self, names: Iterable[str]) -> Mapping[str, datetime | None]:
        """Look while the lock is held already."""
        if self._closed:
            return {}
        self._notice_step()
        asked = [name for name in names if name in self._jobs]
        held = await self.holds.judged()
        probing = probes_of(held.standing, asked, now=clock.utcnow())
        wakes: dict[str, datetime | None] = {}
        begun: set[str] = set()
        left = asked
        for _ in range(MOST_ROUNDS):
            plans = await self._planned(left, held.standing, probing)
            wakes |= {name: made.next_wake for name, made in plans.items()}
            claimed = await self._claimed(plans, probing)
            begun |= {run.job for run in claimed.ours}
            stale = [name for name in claimed.stale if name in self._jobs]
            left = stale + [name for name, made in plans.items() if self._goes_on(name, made)]
            if not left:
                break
            self._states |= await self._app.store.read(job_verbs.states, stale)
        wakes |= dict.fromkeys(left, clock.utcnow() + RETRY_AFTER)
        over = [held.over[name] for name in asked if name in held.over]
        self._workers.submit(await self.holds.release(over, busy=begun))
        return wakes

    def _goes_on(self, name: str, made: Plan) -> bool:
        """Say whether a schedule that was to end goes on: what would have been its last run was skipped."""
        return made.ended and bool(made.decisions) and self._runs_left(name) != 0

    def _runs_left(self, name: str) -> int | None:
        return self._jobs[name].runs_left(self._states[name].runs_started)

    async def _planned(
        self, names: list[str], standing: Mapping[str, HeldJob], probing: Mapping[str, HeldJob]
    ) -> dict[str, Plan]:
        plans: dict[str, Plan] = {}
        for number, name in enumerate(names):
            if number % JOBS_A_BREATH == JOBS_A_BREATH - 1:
                await asyncio.sleep(0)
            plans[name] = self._plan(name, held=name in standing, probes=name in probing)
        self._tell_ahead(max((made.ahead for made in plans.values()), default=timedelta()))
        return plans

    def _plan(self, name: str, *, held: bool, probes: bool) -> Plan:
        job, state = self._jobs[name], self._states[name]
        return plan(
            self._periods(name, state),
            job=name,
            cursor=state.decided_until,
            now=clock.utcnow(),
            watched_since=self._watched_since,
            policy=Policy(
                misfire_grace_time=job.misfire_grace_time,
                catch_up=job.catch_up,
                jitter=job.jitter or timedelta(),
                runs_left=self._runs_left(name),
                held=held,
                probes=probes,
            ),
        )

    def _periods(self, name: str, state: JobState) -> list[Period]:
        """Return what was in force since the cursor; nothing where somebody else has changed the job."""
        stands = state.periods[-1] if state.periods and state.periods[-1].until is None else None
        if stands is not None and not job_verbs.same_timetable(stands.timetable, self._keys[name]):
            if name not in self._strange:
                self._strange.add(name)
                logger.warning(
                    "%s has another timetable in the database, from a daemon with another configuration; "
                    "it is left alone here until the two agree: reload this one, or that one",
                    name,
                )
            return []
        self._strange.discard(name)
        return [self._period(name, each, state) for each in state.periods]

    def _period(self, name: str, stored: StoredPeriod, state: JobState) -> Period:
        return Period(
            since=stored.since,
            until=stored.until,
            schedule=self._schedule(name, stored.timetable, state.first_seen_at),
            paused=stored.paused,
        )

    def _schedule(self, name: str, timetable: str | None, anchor: datetime) -> Schedule | None:
        """Return what a stored timetable says; the one in force is parsed already."""
        if timetable is None:
            return None
        job = self._jobs[name]
        known = self._schedules.get((timetable, anchor))
        if known is None:
            if job.schedule is not None and job_verbs.same_timetable(timetable, self._keys[name]):
                known = job.schedule.anchored(anchor)
            else:
                known = Timetable.from_key(timetable).schedule(now=clock.utcnow(), anchor=anchor)
            self._schedules[(timetable, anchor)] = known
        return known

    def _tell_ahead(self, ahead: timedelta) -> None:
        """Say once that the clock stands behind what has been decided already."""
        if ahead < AHEAD_IS_TOLD:
            self._ahead = False
        elif not self._ahead:
            self._ahead = True
            logger.warning(
                "the clock stands %s behind what has been decided already; nothing starts twice: "
                "jobs go on when it has caught up",
                timedelta(seconds=round(ahead.total_seconds())),
            )

    async def _claimed(self, plans: Mapping[str, Plan], probing: Mapping[str, HeldJob]) -> Claimed:
        """Claim what was planned, tell it, and hand the runs to the workers."""
        now = clock.utcnow()
        wanted = [self._claim_of(name, made, now) for name, made in plans.items() if made.decisions]
        if not wanted:
            return Claimed()
        claimed = await self._app.store.write(
            claims.claim, wanted, instance_id=self._app.workshop.instance_id, now=now
        )
        self._move_on(wanted, claimed)
        probes = {
            run.id for run in claimed.ours if run.job in probing and await self.holds.probe(probing[run.job])
        }
        self._give_way(claimed.replaced)
        self._workers.submit([replace(run, probe=run.id in probes) for run in claimed.ours])
        self._tell(claimed, now)
        return claimed

    def _claim_of(self, name: str, made: Plan, now: datetime) -> JobClaim:
        state, job = self._states[name], self._jobs[name]
        return JobClaim(
            name,
            state.decided_until,
            state.period_id,
            made.cursor,
            tuple(_row_of(name, decision, job) for decision in made.decisions),
            bounds_of(job, now=now),
        )

    def _move_on(self, wanted: list[JobClaim], claimed: Claimed) -> None:
        started: dict[str, int] = {}
        for run in claimed.ours:
            started[run.job] = started.get(run.job, 0) + 1
        for each in wanted:
            if each.job not in claimed.stale:
                state = self._states[each.job]
                self._states[each.job] = replace(
                    state,
                    cursor=each.new_cursor,
                    runs_started=state.runs_started + started.get(each.job, 0),
                    periods=tuple(
                        one for one in state.periods if one.until is None or one.until > each.new_cursor
                    ),
                )

    def _tell(self, claimed: Claimed, now: datetime) -> None:
        for run in claimed.ours:
            self._app.events.emit(RunClaimed(run, (now - run.scheduled_for).total_seconds()))
        for row in claimed.final:
            self._app.events.emit(
                RunDecided(row.job, row.scheduled_for, row.state, row.reason or "", row.span_count)
            )


def key_of(job: ScheduledJob) -> str | None:
    """Return what the store keeps of a job's timetable; None where nothing falls due."""
    return job.timetable.key() if job.enabled and job.timetable is not None else None


def _row_of(name: str, decision: Decision, job: ScheduledJob) -> NewRun:
    queued = decision.state is RunState.QUEUED
    return NewRun(
        name,
        decision.instant,
        decision.trigger,
        decision.state,
        str(decision.reason) if decision.reason else None,
        decision.first,
        decision.count,
        behind=queued and job.catch_up is CatchUp.ALL and decision.trigger is Trigger.CATCH_UP,
    )
