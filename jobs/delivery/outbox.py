"""The outbox at work: what is due is claimed, sent outside any transaction, and settled, target by target."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from types import MappingProxyType

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.delivery.backoff import LONGEST_ASKED, WAITS, longest_waits, verdict_of
from jobs.delivery.contents import content_of
from jobs.delivery.left_alone import LEFT_TO_OTHERS, LeftAlone
from jobs.delivery.room import HANGS_AFTER, Room
from jobs.delivery.send import Tools, send
from jobs.delivery.target import DeliveryTarget
from jobs.delivery_state import DeliveryState
from jobs.errors import Unavailable, Undeliverable
from jobs.events import DeliverySettled, Events
from jobs.store import deliveries, instances
from jobs.store.deliveries import ClaimedDelivery, Due, Verdict
from jobs.store.store import Store

LOOKS_EVERY = 5.0
"""Seconds after which it looks in any case: other processes write rows too, and nobody says so."""

MARGIN = timedelta(seconds=30)
"""How much longer than its timeout a sender may take before others take its delivery over."""

LONGEST_PAUSE = 60.0
"""How many seconds a target that hangs is left alone at most, whatever waits for it."""

LONGEST_ERROR = 500
_GIVES_UP = timedelta(seconds=10)  # after a target's timeout, should its kind not keep to that
_CANCEL_TIMEOUT = 5.0
_GATHERS = 0.05
_SET_BACK = timedelta(seconds=1)
_LONGEST_WORDS = 8_000
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ways:
    """Where deliveries go, by name, and what they are sent with. `zones` are those of the jobs.

    `zone` is that of a job that is gone, where nothing else says it. `seals` differ where the secrets of a
    target do, though it refers to them as before.
    """

    targets: Mapping[str, DeliveryTarget]
    zones: Mapping[str, tzinfo]
    tools: Tools
    seals: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    zone: tzinfo = UTC

    def version(self, name: str) -> tuple[DeliveryTarget | None, bytes | None]:
        """Return what is another one when a target is."""
        return self.targets.get(name), self.seals.get(name)


class Outbox:
    """Sends what is due, one after the other to each target, and many targets at once.

    So a target that hangs holds up nobody else, and is left alone for a while. Nothing is lost: what a
    process was sending when it died is sent again with the same key, by whoever finds it. A target that these
    ways do not know is left to a process that may know it; where there is no other, or none is seen to send
    to it for so long as `leaves_for`, what goes there fails.
    """

    def __init__(
        self,
        store: Store,
        events: Events,
        ways: Ways,
        *,
        instance_id: int,
        waits: Sequence[timedelta] = WAITS,
        hangs_after: float = HANGS_AFTER,
        leaves_for: timedelta = LEFT_TO_OTHERS,
        looks_every: float = LOOKS_EVERY,
    ) -> None:
        self._store, self._events, self._instance_id, self._waits = store, events, instance_id, waits
        self._room, self._hangs_after = Room(hangs_after=hangs_after), hangs_after
        self._ways, self._closed, self._looks_every = ways, False, looks_every
        self._left_alone = LeftAlone(instance_id=instance_id, given_up_after=leaves_for)
        self._lanes: dict[str, asyncio.Task[int]] = {}
        self._sending: dict[str, asyncio.Timeout] = {}
        self._paused: dict[str, float] = {}
        self._answers: set[str] = set()
        self._changed: frozenset[str] = frozenset()
        self._asked = asyncio.Event()
        self._offset: timedelta | None = None

    def take(self, ways: Ways) -> None:
        """Send these ways from now on; what is being sent in a way that is no more is sent anew.

        What has failed at a target that is another one now does not wait for its next try.
        """
        before, self._ways = self._ways, ways
        names = {*before.targets, *ways.targets}
        changed = frozenset(name for name in names if ways.version(name) != before.version(name))
        for name in changed & self._sending.keys():
            if not self._sending[name].expired():
                self._sending[name].reschedule(asyncio.get_running_loop().time())
        self._changed |= changed
        self._answers -= changed
        self.hasten()

    def wake(self) -> None:
        """Look soon: there may be something to send."""
        self._asked.set()

    def hasten(self) -> None:
        """Look soon, and leave no target alone any longer: somebody has mended it, or says so."""
        self._paused.clear()
        self.wake()

    async def watch(self) -> None:
        """Send what is due when it is due, until cancelled, or nothing more once it is closed."""
        while not self._closed:
            self._asked.clear()
            await self._mend_times()
            await self._hasten_changed()
            wait = await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._asked.wait()
                    await asyncio.sleep(_GATHERS)

    async def send_of(self, run_id: int) -> None:
        """Send what is due of one run, once: for a process that ends with its run."""
        found = await self._store.read(
            deliveries.due,
            instance_id=self._instance_id,
            now=clock.utcnow(),
            known=tuple(self._ways.targets),
            run_id=run_id,
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

    async def _hasten_changed(self) -> None:
        """Have what waits for its next try at a changed target sent now, once for each reload."""
        changed = self._changed
        if not changed:
            return
        known = changed & self._ways.targets.keys()
        hastened = await self._store.insist(deliveries.hasten, known, now=clock.utcnow())
        if self._changed is changed:
            self._changed = frozenset()
        if hastened:
            logger.info("deliveries that are tried again now, since their targets have changed: %d", hastened)

    async def _look(self) -> float:
        """Begin with every target for which something is due; return in how many seconds to look again."""
        now, tick = clock.utcnow(), clock.monotonic()
        self._paused = {name: until for name, until in self._paused.items() if until > tick}
        found, next_due, left = await self._store.insist_on_reading(
            _seen,
            instance_id=self._instance_id,
            now=now,
            known=tuple(self._ways.targets),
            given_up=self._left_alone.given_up(tick=tick),
            busy=(*self._lanes, *self._paused),
        )
        self._left_alone.see(left, tick=tick)
        untried_first = sorted(found.items(), key=lambda each: each[1][0].attempts > 0)
        for target, seen in untried_first if not self._closed else ():
            lane = asyncio.create_task(self._lane(seen), name=f"deliveries to {target}")
            self._lanes[target] = lane
            lane.add_done_callback(partial(self._lane_ended, target))
        waits = [self._looks_every, *(until - tick for until in self._paused.values())]
        return min(waits if next_due is None else [*waits, (next_due - now).total_seconds()])

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
        """Send these one after the other, and return how many were sent; other processes may be faster.

        It ends early where the target hangs, or is another one than when it began.
        """
        sent = 0
        for each in seen:
            async with self._room.place(answers=each.target in self._answers):
                if self._closed:
                    break
                claimed = await self._store.insist(self._claim, each)
                if claimed is not None:
                    goes_on = await self._deliver(claimed)
                    sent += 1
                    if not goes_on:
                        break
        return sent

    def _claim(self, connection: Connection, seen: Due) -> ClaimedDelivery | None:
        """Claim when the writer comes to it: what waits for the writer may wait for long."""
        target, now, tick = self._ways.targets.get(seen.target), clock.utcnow(), clock.monotonic()
        if target is None and not self._left_alone.may_fail(connection, seen.target, now=now, tick=tick):
            return None
        until = now + (target.timeout if target else timedelta()) + MARGIN
        return deliveries.claim(connection, seen, instance_id=self._instance_id, until=until, now=now)

    async def _deliver(self, claimed: ClaimedDelivery) -> bool:
        """Send a delivery and settle it; return whether the next one may follow at once."""
        began, version = clock.monotonic(), self._ways.version(claimed.target)
        try:
            verdict = Verdict.delivered() if await self._sent(claimed) else None
        except Undeliverable as exc:
            verdict = self._verdict(claimed, exc)
        except Exception as exc:  # a bug in sending must not send the same again and again
            logger.exception("delivery %d to %s", claimed.id, claimed.target)
            verdict = self._verdict(claimed, Undeliverable(f"{type(exc).__name__}: {exc}"))
        if verdict is None:
            logger.info("delivery %d begins anew: the target %s has changed", claimed.id, claimed.target)
            await self._store.insist(deliveries.give_back, self._instance_id, only=claimed)
            return False
        same = self._ways.version(claimed.target) == version
        goes_on = same and self._goes_on(claimed.target, verdict, clock.monotonic() - began)
        # noted before anybody can see it: who sees a failure and asks for another try is not overruled
        if await self._store.insist(deliveries.settle, claimed, verdict, now=clock.utcnow()):
            self._events.emit(_told(claimed, verdict))
        else:
            logger.warning("delivery %d was taken over by another process meanwhile", claimed.id)
        return goes_on and self._ways.version(claimed.target) == version

    async def _sent(self, claimed: ClaimedDelivery) -> bool:
        """Send a delivery; raises Undeliverable. Returns False where its target changed meanwhile."""
        version = target, _ = self._ways.version(claimed.target)
        if target is None:
            name, again = claimed.target, f"`promptd delivery retry {claimed.id}`"
            raise Undeliverable(f"no delivery target named {name!r}; put it back and {again}", permanent=True)
        zones, zone = self._ways.zones, self._ways.zone
        message = await self._store.insist_on_reading(content_of, claimed, zones, zone=zone)
        if message is None or self._ways.version(claimed.target) != version:
            return message is None  # whoever has removed its run has removed it as well
        try:
            async with asyncio.timeout((target.timeout + _GIVES_UP).total_seconds()) as scope:
                self._sending[target.name] = scope
                await send(target, message, tools=self._ways.tools)
        except TimeoutError:
            if self._ways.version(claimed.target) != version:
                return False
            raise Undeliverable(f"no end within {target.timeout.total_seconds():g} s") from None
        finally:
            self._sending.pop(target.name, None)
        return True

    def _goes_on(self, target: str, verdict: Verdict, seconds: float) -> bool:
        """Remember whether a target answers; return whether the next delivery may follow at once.

        One that has hung is left alone until it is tried again, unless it answered the time before.
        """
        hung = verdict.state is not DeliveryState.DELIVERED and seconds >= self._hangs_after
        answers, answered = not hung and target in self._ways.targets, target in self._answers
        (self._answers.add if answers else self._answers.discard)(target)
        if not hung or answered or verdict.again_at is None:
            return True
        wait = (verdict.again_at - clock.utcnow()).total_seconds()
        self._paused[target] = clock.monotonic() + min(wait, LONGEST_PAUSE)
        return False

    def _verdict(self, claimed: ClaimedDelivery, refused: Undeliverable) -> Verdict:
        why = self._ways.tools.redactor.clean(str(refused)[:_LONGEST_WORDS])[:LONGEST_ERROR]
        return verdict_of(refused, why, failures=claimed.failures + 1, now=clock.utcnow(), waits=self._waits)


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _seen(
    connection: Connection,
    *,
    instance_id: int,
    now: datetime,
    known: Collection[str],
    given_up: Collection[str],
    busy: Collection[str],
) -> tuple[dict[str, list[Due]], datetime | None, Collection[str]]:
    """Return what is due, when the next delivery after that is, and which targets are left alone.

    What goes to a target that is not known is another process's, where there is one and it is not given up.
    """
    alone = instances.is_alone(connection, instance_id, now=now)
    mine = None if alone else (*known, *given_up)
    left = () if alone else deliveries.left_alone(connection, known, instance_id=instance_id, now=now)
    found = deliveries.due(connection, instance_id=instance_id, now=now, known=mine, busy=busy)
    return found, deliveries.next_due(connection, now=now), left


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
