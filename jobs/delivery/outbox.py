"""The outbox at work: what is due is claimed, sent outside any transaction, and settled, target by target."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.delivery.backoff import LONGEST_ASKED, WAITS, longest_waits, verdict_of
from jobs.delivery.contents import content_of
from jobs.delivery.send import Tools, send
from jobs.delivery.target import DeliveryTarget
from jobs.delivery_state import DeliveryState
from jobs.errors import Unavailable, Undeliverable
from jobs.events import DeliverySettled, Events
from jobs.store import deliveries, instances
from jobs.store.deliveries import ClaimedDelivery, Due, Verdict
from jobs.store.store import Store

AT_ONCE = 8
LOOKS_EVERY = 5.0
"""Seconds after which it looks in any case: other processes write rows too, and nobody says so."""

MARGIN = timedelta(seconds=30)
"""How much longer than its timeout a sender may take before others take its delivery over."""

LONGEST_ERROR = 500
_GIVES_UP = timedelta(seconds=10)  # after a target's timeout, should its kind not keep to that
_OF_NO_TARGET = timedelta(seconds=30)
_CANCEL_TIMEOUT = 5.0
_GATHERS = 0.05
_SET_BACK = timedelta(seconds=1)
_LONGEST_WORDS = 8_000
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ways:
    """Where deliveries go, by name, and what they are sent with. `zones` are those of the jobs."""

    targets: Mapping[str, DeliveryTarget]
    zones: Mapping[str, tzinfo]
    tools: Tools


class Outbox:
    """Sends what is due: `AT_ONCE` at once, and one after the other to each target.

    So a target that hangs holds up nobody else. Nothing is lost: what a process was sending when it died is
    sent again with the same key, by whoever finds it.
    """

    def __init__(
        self,
        store: Store,
        events: Events,
        ways: Ways,
        *,
        instance_id: int,
        waits: Sequence[timedelta] = WAITS,
    ) -> None:
        self._store, self._events, self._instance_id, self._waits = store, events, instance_id, waits
        self._room = asyncio.Semaphore(AT_ONCE)
        self._lanes: dict[str, asyncio.Task[int]] = {}
        self._asked = asyncio.Event()
        self._closed = False
        self._offset: timedelta | None = None
        self.take(ways)

    def take(self, ways: Ways) -> None:
        """Send these ways from now on; what is being sent goes on as it began."""
        self._ways = ways
        self.wake()

    def wake(self) -> None:
        """Look soon: there may be something to send."""
        self._asked.set()

    async def watch(self) -> None:
        """Send what is due when it is due, until cancelled, or nothing more once it is closed."""
        while not self._closed:
            self._asked.clear()
            await self._mend_times()
            wait = await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._asked.wait()
                    await asyncio.sleep(_GATHERS)

    async def send_of(self, run_id: int) -> None:
        """Send what is due of one run, once: for a process that ends with its run."""
        found = await self._store.read(
            deliveries.due, instance_id=self._instance_id, now=clock.utcnow(), run_id=run_id
        )
        await asyncio.gather(*(self._lane(each) for each in found.values()))

    def close(self) -> None:
        """Begin to send nothing more."""
        self._closed = True
        self.wake()

    async def drain(self, seconds: float) -> None:
        """Let what is being sent have so many seconds to arrive."""
        self.close()
        if self._lanes:
            await asyncio.wait(tuple(self._lanes.values()), timeout=seconds)

    async def stop(self) -> None:
        """Send no more, and leave what is being sent to the next process."""
        self.close()
        late = tuple(self._lanes.values())
        for lane in late:
            lane.cancel()
        if late:
            await asyncio.wait(late, timeout=_CANCEL_TIMEOUT)
        try:
            left = await self._store.write(deliveries.give_back, self._instance_id)
        except (DBAPIError, Unavailable) as exc:
            logger.warning("what was being sent is sent again later: %s", getattr(exc, "orig", exc))
        else:
            if left:
                logger.warning("deliveries that were cut off, and are sent again with the same key: %d", left)

    async def _mend_times(self) -> None:
        """Where the clock was set back, let nothing wait for the time that it showed before."""
        before, self._offset = self._offset, clock.utcnow() - _EPOCH - timedelta(seconds=clock.monotonic())
        if before is not None and before - self._offset < _SET_BACK:
            return
        longest = longest_waits(self._waits) if before is not None else (LONGEST_ASKED + MARGIN,)
        pulled = await self._store.insist(deliveries.pull_in, longest=longest, now=clock.utcnow())
        if pulled:
            logger.warning("deliveries that waited for a time which a wrong clock had set: %d", pulled)

    async def _look(self) -> float:
        """Begin with every target for which something is due; return in how many seconds to look again."""
        now = clock.utcnow()
        found, next_due = await self._store.insist_on_reading(
            _seen, instance_id=self._instance_id, now=now, busy=tuple(self._lanes)
        )
        for target, seen in found.items() if not self._closed else ():
            lane = asyncio.create_task(self._lane(seen), name=f"deliveries to {target}")
            self._lanes[target] = lane
            lane.add_done_callback(partial(self._lane_ended, target))
        return min((next_due - now).total_seconds(), LOOKS_EVERY) if next_due else LOOKS_EVERY

    def _lane_ended(self, target: str, lane: "asyncio.Task[int]") -> None:
        """Look again where something was sent, since there may be more; else after a while."""
        del self._lanes[target]
        if lane.cancelled():
            return
        if lane.exception() is not None:
            logger.error("deliveries to %s: %r", target, lane.exception())
        elif lane.result():
            self.wake()

    async def _lane(self, seen: Sequence[Due]) -> int:
        """Send these one after the other, and return how many were sent; other processes may be faster."""
        sent = 0
        for each in seen:
            async with self._room:
                if self._closed:
                    break
                claimed = await self._store.insist(self._claim, each)
                if claimed is not None:
                    await self._deliver(claimed)
                    sent += 1
        return sent

    def _claim(self, connection: Connection, seen: Due) -> ClaimedDelivery | None:
        """Claim when the writer comes to it: what waits for the writer may wait for long."""
        target, now = self._ways.targets.get(seen.target), clock.utcnow()
        until = now + (target.timeout if target else _OF_NO_TARGET) + MARGIN
        return deliveries.claim(connection, seen, instance_id=self._instance_id, until=until, now=now)

    async def _deliver(self, claimed: ClaimedDelivery) -> None:
        try:
            await self._send(claimed)
            verdict = Verdict.delivered()
        except Undeliverable as exc:
            verdict = self._verdict(claimed, exc)
        except Exception as exc:  # a bug in sending must not send the same again and again
            logger.exception("delivery %d to %s", claimed.id, claimed.target)
            verdict = self._verdict(claimed, Undeliverable(f"{type(exc).__name__}: {exc}"))
        settled = await self._store.insist(deliveries.settle, claimed, verdict, now=clock.utcnow())
        if settled:
            self._events.emit(_told(claimed, verdict))
        else:
            logger.warning("delivery %d was taken over by another process meanwhile", claimed.id)

    async def _send(self, claimed: ClaimedDelivery) -> None:
        """Send a delivery; raises Undeliverable."""
        target = self._ways.targets.get(claimed.target)
        if target is None:
            raise await self._homeless(claimed)
        message = await self._store.insist_on_reading(content_of, claimed, self._ways.zones)
        if message is None:
            return  # whoever has removed its run has removed it as well
        try:
            async with asyncio.timeout((target.timeout + _GIVES_UP).total_seconds()):
                await send(target, message, tools=self._ways.tools)
        except TimeoutError:
            raise Undeliverable(f"no end within {target.timeout.total_seconds():g} s") from None

    async def _homeless(self, claimed: ClaimedDelivery) -> Undeliverable:
        """Say that nobody knows the target; where another daemon works here too, that one may know it."""
        alone = await self._store.insist_on_reading(
            instances.is_only_daemon, self._instance_id, now=clock.utcnow()
        )
        name = claimed.target
        return Undeliverable(
            f"no delivery target named {name!r}; put it back and `promptd delivery retry {claimed.id}`",
            permanent=alone,
        )

    def _verdict(self, claimed: ClaimedDelivery, refused: Undeliverable) -> Verdict:
        why = self._ways.tools.redactor.clean(str(refused)[:_LONGEST_WORDS])[:LONGEST_ERROR]
        failures, now = claimed.failures + 1, clock.utcnow()
        return verdict_of(refused, why, failures=failures, now=now, waits=self._waits)


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _seen(
    connection: Connection, *, instance_id: int, now: datetime, busy: Sequence[str]
) -> tuple[dict[str, list[Due]], datetime | None]:
    """Return what is due, and when the next delivery after that is."""
    found = deliveries.due(connection, instance_id=instance_id, now=now, busy=busy)
    return found, deliveries.next_due(connection, now=now)


def _told(claimed: ClaimedDelivery, verdict: Verdict) -> DeliverySettled:
    outcome = "retried" if verdict.state is DeliveryState.PENDING else str(verdict.state)
    return DeliverySettled(
        claimed.id,
        claimed.target,
        outcome,
        claimed.attempts,
        run_id=claimed.run_id,
        alert_id=claimed.alert_id,
        again_at=verdict.again_at,
        why=verdict.why,
    )
