"""Which held jobs stay held: while all that closes them is closed, or until their time has come."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from jobs.events import JobReleased
from jobs.providers.openings import Opening
from jobs.run import HOLD_MARGIN, ClaimedRun
from jobs.store import holds
from jobs.store.holds import PROBE_EVERY, HeldJob
from jobs.target import Target
from scheduler.app import App
from scheduler.config.settings import ScheduledJob


class Holds:
    """Asks the ledger who is held, and the marks whether that still stands. Keeps nothing itself."""

    def __init__(self, app: App, jobs: Mapping[str, ScheduledJob]) -> None:
        self._app, self._jobs = app, jobs

    async def standing(self, *, now: datetime) -> Mapping[str, HeldJob]:
        """Return the scheduled jobs that are held and stay so."""
        return {name: each for name, (each, stands) in (await self._judged(now)).items() if stands}

    async def over(self, *, now: datetime) -> list[str]:
        """Return the scheduled jobs whose hold stands no more."""
        return [name for name, (_, stands) in (await self._judged(now)).items() if not stands]

    async def _judged(self, now: datetime) -> dict[str, tuple[HeldJob, bool]]:
        known = await self._app.store.read(holds.held)
        openings: dict[tuple[Target, ...], Opening | None] = {}  # most held jobs share one chain
        judged = {}
        for name, each in known.items():
            if name in self._jobs:
                judged[name] = (each, await self._stands(each, openings, now))
        return judged

    async def release(self, names: Iterable[str], *, busy: Iterable[str], now: datetime) -> list[ClaimedRun]:
        """End the holds of these jobs that stand no more; return the runs that make up for them.

        A job in `busy` runs now anyway, and needs nothing made up.
        """
        known = await self._app.store.read(holds.held)
        runs = []
        for each in (known[name] for name in names if name in known):
            ended, run = await self._app.store.write(
                holds.release,
                each,
                makes_up=each.name not in busy,
                instance_id=self._app.workshop.instance_id,
                now=now,
            )
            if ended:
                self._app.events.emit(JobReleased(each.name))
            runs += [run] if run is not None else []
        return runs

    async def _stands(
        self, each: HeldJob, openings: dict[tuple[Target, ...], Opening | None], now: datetime
    ) -> bool:
        """Say whether a hold stands; one whose credentials were closed for longer meanwhile is extended."""
        if each.held_until - HOLD_MARGIN <= now < each.held_until:
            return True
        targets = self._jobs[each.name].job.chain
        if targets not in openings:
            openings[targets] = await self._app.workshop.chain.opening(targets)
        opening = openings[targets]
        if opening is None:
            return False
        if each.held_until <= now:
            await self._app.store.write(holds.extend, each.name, opening.at + HOLD_MARGIN)
        return True


def probes_of(standing: Mapping[str, HeldJob], names: Iterable[str], *, now: datetime) -> dict[str, str]:
    """Choose which of these held jobs may probe now, one for each set of closed credentials: name to set."""
    due = [standing[name] for name in names if name in standing]
    newest: dict[str, datetime] = {}
    for each in standing.values():
        newest[each.hold_key] = max(each.probed_at, newest.get(each.hold_key, each.probed_at))
    chosen: dict[str, str] = {}
    for each in due:
        if now - newest[each.hold_key] >= PROBE_EVERY and each.hold_key not in chosen.values():
            chosen[each.name] = each.hold_key
    return chosen
