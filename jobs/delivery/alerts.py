"""Alerts: what is wrong is looked for every 5 s, and told once, whatever process looks and however often."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.alert import AlertKind
from jobs.delivery.alert_rules import (
    BACK_WITHIN,
    NEWS_WITHIN,
    HeldBy,
    Judgement,
    Keyless,
    Trouble,
    Watched,
    judged,
    left_to_others,
)
from jobs.delivery.alert_words import (
    MOST_APART,
    MOST_NAMED,
    Details,
    gathered,
    opened,
    reminder,
    resolved,
)
from jobs.events import AlertTold, AttributionWasRefused, Event, Events, WriteFailed
from jobs.providers.resolve import no_key
from jobs.store import alert_facts, alerts, instances
from jobs.store.alert_facts import FailingJob
from jobs.store.alerts import Told, Verdict
from jobs.store.engine import kind_of
from jobs.store.revision import OtherRevision
from jobs.store.store import Store

__all__ = ["Alerts", "Watched"]

EVERY = timedelta(seconds=5)


class Alerts:
    """Judges what is wrong, and writes what is to be told. `wake` is called when deliveries were written."""

    def __init__(
        self,
        store: Store,
        events: Events,
        watched: Watched,
        *,
        wake: Callable[[], None],
        instance_id: int,
        every: timedelta = EVERY,
    ) -> None:
        self._every = every
        self._store, self._events, self._wake, self._instance_id = store, events, wake, instance_id
        self._watched = watched
        self._hurry = asyncio.Event()

    def take(self, watched: Watched) -> None:
        """Judge by this configuration from now on."""
        self._watched = watched

    def hear(self, event: Event) -> None:
        """Listen to events: of a refused attribution people are told at once, not at the next beat."""
        if isinstance(event, AttributionWasRefused):
            self._hurry.set()

    async def watch(self) -> None:
        """Judge every 5 s, until cancelled; a database that cannot be asked is told of, and asked again."""
        while True:
            self._hurry.clear()
            try:
                await self.judge()
            except DBAPIError as exc:
                self._events.emit(WriteFailed(kind_of(exc), str(exc.orig)))
            except OtherRevision:
                pass  # nothing is written meanwhile, and whoever looks after the process tells it
            try:
                async with asyncio.timeout(self._every.total_seconds()):
                    await self._hurry.wait()
            except TimeoutError:
                continue

    async def judge(self) -> int:
        """Judge once; return how many alerts were told of. With nobody to tell nothing is judged."""
        watched = self._watched
        if not watched.policy.to:
            return 0
        await self._store.check_revision()
        now = clock.utcnow()
        verdict = await self._store.read(look, watched, instance_id=self._instance_id, now=now)
        told: tuple[Told, ...] = ()
        if verdict:
            told = await self._store.write(
                alerts.tell, verdict, to=watched.policy.to, now=now, gathered=gathered
            )
        self._tell(told)
        return len(told)

    def _tell(self, told: tuple[Told, ...]) -> None:
        for each in told:
            about, change = each.change.about, each.change
            self._events.emit(
                AlertTold(
                    about.kind,
                    change.notice,
                    change.subject,
                    job=about.job,
                    provider=about.provider,
                    credential=about.credential,
                    run_id=about.run_id,
                )
            )
        if told:
            self._wake()


def look(
    connection: Connection,
    watched: Watched,
    *,
    instance_id: int,
    now: datetime,
) -> Verdict:
    """Read the facts, judge them, and put what is to be told into words; writes nothing.

    What this configuration does not know is closed where no other daemon works here, who may know it, nor
    has done so within a day: one that is down comes back and tells it.
    """
    facts = alert_facts.facts(connection, since=now - NEWS_WITHIN)
    found = judged(facts, watched, _keyless(connection, watched, now), now=now)
    if found.close and _others_may_know(connection, instance_id, now):
        found = left_to_others(found, watched)
    details = _details(connection, found, now)
    changes = (
        *(opened(each, details, watched) for each in found.opens),
        *(opened(each, details, watched, standing=standing) for standing, each in found.tells),
        *(reminder(standing, each, details, watched) for standing, each in found.reminds),
        *(resolved(standing, details, watched) for standing in found.over),
    )
    return Verdict(changes, found.close, found.redate, facts.newest, watched.policy.remind_every)


def _others_may_know(connection: Connection, instance_id: int, now: datetime) -> bool:
    """Say whether another daemon works here, or did a short while ago."""
    if not instances.is_only_daemon(connection, instance_id, now=now):
        return True
    return alert_facts.another_daemon_worked(connection, instance_id, since=now - BACK_WITHIN)


def _keyless(connection: Connection, watched: Watched, now: datetime) -> Iterator[Keyless]:
    """Yield the providers none of whose secrets can be read now."""
    if watched.vault is None:
        return
    for provider in watched.providers:
        why = no_key(provider.name, watched.vault.look(connection, provider, now=now))
        if why is not None:
            yield Keyless(provider.name, why)


def _details(connection: Connection, found: Judgement, now: datetime) -> Details:
    """Read what words need. Of many of a kind only subjects are told, so it is read for some of them."""
    reminded = [trouble for _, trouble in found.reminds]
    some = [*_of_kind(found.opens), *_of_kind(reminded)]
    ended = [each.about.job for each in found.over if each.about.kind is AlertKind.JOB_FAILING]
    names = [each.fact.name for each in some if isinstance(each.fact, FailingJob)]
    held = [each.fact for each in some if isinstance(each.fact, HeldBy)]
    return Details(
        now,
        alert_facts.newest_ends(connection, (*names, *filter(None, ended[:MOST_NAMED]))),
        {
            ", ".join(each.names): tuple(alert_facts.held_by(connection, each.hold_keys, at_most=MOST_NAMED))
            for each in held
        },
    )


def _of_kind(troubles: Sequence[Trouble]) -> Iterator[Trouble]:
    """Yield the first of each kind, as many as may get a message each."""
    seen: Counter[AlertKind] = Counter()
    for each in troubles:
        seen[each.about.kind] += 1
        if seen[each.about.kind] <= MOST_APART:
            yield each
