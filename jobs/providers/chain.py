"""The chain: one loop over targets. A failure to resolve and a failure to answer lead on in one way."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection

from jobs import clock
from jobs.attempt import Step, Wait
from jobs.errors import ErrorClass
from jobs.events import ChainWaits, FellBack
from jobs.providers.call import Answered, Call, ChainExhausted, Left, Progress
from jobs.providers.openings import Opening, earliest
from jobs.providers.pool import Habits
from jobs.providers.resolve import PassedOver
from jobs.providers.services import Services
from jobs.providers.settle import looked_at, pass_over
from jobs.providers.stay import Stay
from jobs.request import Request
from jobs.store import attempts
from jobs.store.attempts import Place
from jobs.target import Target

MOST_WAITS = 12
LOOK_AGAIN = timedelta(seconds=5)


class Chain:
    """Asks targets in order until one answers. Holds no state between calls."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def complete(self, request: Request, call: Call) -> Answered:
        """Return the first proved answer of the chain; raises ChainExhausted.

        At most 5 targets are asked, with 12 requests, refreshes counted; the caller's deadline bounds all
        of it. When every target is closed and one opens within the deadline, it is waited for.
        """
        progress = Progress(call, request, index=call.first)
        left: dict[int, Left] = {}
        waits = 0
        while True:
            ended = await Stay(self._services, progress).run()
            if not isinstance(ended, Left):
                completion, attempt = ended
                reason = left[call.first].error_class if attempt.target_index != call.first else None
                return Answered(completion, attempt, progress.request, reason)
            left[progress.index] = ended
            if await self._went_on(progress, ended):
                continue
            waits += 1
            if waits > MOST_WAITS or not await self._waited(progress, left):
                healing = progress.may_wait(ended.error_class)
                opening = await self.opening(call.targets[call.first :]) if healing else None
                raise ChainExhausted([left[index] for index in sorted(left)], opening)

    async def opening(self, targets: tuple[Target, ...], *, now: datetime | None = None) -> Opening | None:
        """Return when the first of these targets opens again, if every one is closed for a known time.

        `now` is the moment at which they are to be closed; None is this one.
        """
        return await self._services.store.insist_on_reading(
            _opening, self._services, targets, now=now or clock.utcnow()
        )

    async def _went_on(self, progress: Progress, ended: Left) -> bool:
        """Move to the next target, if there is one that may be asked."""
        following = progress.following(ended.error_class)
        if following is None or progress.step_out(ended.error_class) is Step.STOP:
            return False
        too_long = progress.was_too_long(ended.error_class)
        for skipped in range(progress.index + 1, following):
            await self._skip(progress, skipped, too_long or ended.error_class)
        to = progress.call.targets[following].provider
        self._services.events.emit(
            FellBack(progress.call.run_id, ended.target.provider, to, ended.error_class)
        )
        progress.move_to(following, ended.error_class)
        return True

    async def _skip(self, progress: Progress, index: int, error_class: ErrorClass) -> None:
        call = progress.call
        why = PassedOver(error_class, "what was too long is only given to a target with larger_context")
        place = Place(call.run_id, call.tries, call.purpose, index)
        await self._services.store.insist(
            pass_over, place, call.targets[index], why, Step.NEXT_TARGET, Wait(), clock.utcnow()
        )

    async def _waited(self, progress: Progress, left: Mapping[int, Left]) -> bool:
        """Wait for an opening that lies within the deadline, and go on from there.

        What was closed as it was left, and whose time has passed since, is gone on with at once.
        """
        call, awaited, ended = progress.call, progress.awaited(), left[progress.index]
        if not (call.waits and awaited and progress.may_wait(ended.error_class)) or progress.spent:
            return False
        targets = tuple(call.targets[at] for at in awaited)
        opening = await self.opening(targets, now=left.get(awaited[0], ended).at)
        if opening is None:
            return False
        seconds = max(0.0, (opening.at - clock.utcnow()).total_seconds())
        if seconds >= progress.time_left.total_seconds():
            return False
        if call.run_id is not None:
            await self._services.store.insist(attempts.amend_recovery, call.run_id, Step.RETRY)
        self._services.events.emit(ChainWaits(call.run_id, seconds, str(opening)))
        started = clock.monotonic()
        async with call.rest():
            await self._until(opening.at, targets)
        progress.wait += Wait(clock.monotonic() - started, str(opening))
        progress.index = awaited[0]
        return True

    async def _until(self, moment: datetime, targets: tuple[Target, ...]) -> None:
        """Sleep until then, or until somebody opens one of the targets sooner."""
        while (left := (moment - clock.utcnow()).total_seconds()) > 0:
            await asyncio.sleep(min(left, LOOK_AGAIN.total_seconds()))
            sooner = await self.opening(targets)
            if sooner is None or sooner.at < moment:
                return


def _opening(
    connection: Connection, services: Services, targets: tuple[Target, ...], *, now: datetime
) -> Opening | None:
    resolutions = []
    for target in targets:
        provider = services.registry.provider(target.provider)
        found = looked_at(connection, services.vault, provider, target, Habits(), now)
        resolutions.append((target, found))
    return earliest(resolutions)
