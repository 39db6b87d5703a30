"""Which held jobs stay held: while all that closes them is closed, or until their time has come."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from jobs import clock
from jobs.events import JobReleased
from jobs.providers.openings import Opening
from jobs.run import ClaimedRun
from jobs.store import holds
from jobs.store.holds import PROBE_EVERY, HeldJob
from jobs.target import Target
from scheduler.app import App


@dataclass(frozen=True, slots=True)
class Judged:
    """The holds of one moment, by job: those that stand, and those that stand no more."""

    standing: Mapping[str, HeldJob]
    over: Mapping[str, HeldJob]


class Holds:
    """Asks the ledger who is held, and the marks whether that still stands. Keeps nothing itself.

    `due` are the jobs that fall due by themselves: only they are made up for.
    """

    def __init__(self, app: App, *, due: Collection[str]) -> None:
        self._app, self._due = app, due

    async def judged(self) -> Judged:
        """Return the holds that stand and those that do not; one of a job that is gone does not."""
        known = await self._app.store.read(holds.held)
        openings: dict[tuple[Target, ...], Opening | None] = {}  # most held jobs share one chain
        stands = {name: await self._stands(each, openings) for name, each in known.items()}
        return Judged(
            {name: each for name, each in known.items() if stands[name]},
            {name: each for name, each in known.items() if not stands[name]},
        )

    async def release(self, over: Iterable[HeldJob], *, busy: Collection[str] = ()) -> list[ClaimedRun]:
        """End holds that stand no more; return the runs that make up for them.

        A job in `busy` runs now anyway, and needs nothing made up.
        """
        runs = []
        for each in over:
            ended, run = await self._app.store.write(
                holds.release,
                each,
                makes_up=each.name in self._due and each.name not in busy,
                instance_id=self._app.workshop.instance_id,
                now=clock.utcnow(),
            )
            if ended:
                self._app.events.emit(JobReleased(each.name))
            runs += [run] if run is not None else []
        return runs

    async def probe(self, each: HeldJob) -> bool:
        """Say whether this process may send the probe of a held job now."""
        return await self._app.store.write(holds.note_probe, each, now=clock.utcnow())

    async def _stands(self, each: HeldJob, openings: dict[tuple[Target, ...], Opening | None]) -> bool:
        """Say whether a hold stands; one whose credentials were closed for longer meanwhile is extended."""
        job, now = self._app.settings.jobs.get(each.name), clock.utcnow()
        if job is None:
            return False
        if each.opens_at is not None and each.opens_at <= now < each.held_until:
            return True
        targets = job.job.chain
        if targets not in openings:
            openings[targets] = await self._app.workshop.chain.opening(targets)
        opening = openings[targets]
        if opening is None:
            return False
        if each.held_until <= now:
            await self._app.store.write(holds.extend, each.name, opening.at)
        return True


def probes_of(standing: Mapping[str, HeldJob], names: Iterable[str], *, now: datetime) -> dict[str, HeldJob]:
    """Choose which of these held jobs may probe now, one for each set of closed credentials."""
    newest: dict[str, datetime] = {}
    for each in standing.values():
        newest[each.hold_key] = max(each.probed_at, newest.get(each.hold_key, each.probed_at))
    chosen: dict[str, HeldJob] = {}
    for each in (standing[name] for name in names if name in standing):
        if now - newest[each.hold_key] >= PROBE_EVERY:
            chosen.setdefault(each.hold_key, each)
    return {each.name: each for each in chosen.values()}
