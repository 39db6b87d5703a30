"""Alerts in the database: what they are judged by, and the one verb that tells of them, each once.

`told_at` is when people were last told of an alert. One that is over was told of at that very moment
(`told_at` = `resolved_at`), unless it was closed without a word: then the two differ. An alert of a kind that
does not last is open while nobody was told of it: whoever met what it is about has written that down.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, func, insert, select, update

from jobs.alert import AlertKind, Notice
from jobs.delivery_state import DeliveryState
from jobs.store.deliveries import new_key
from jobs.store.jobs import insert_or_ignore
from jobs.store.tables import alerts, deliveries

MOST_UNTOLD = 100
"""How many alerts of a kind that does not last are kept for whoever tells of them, should nobody do so."""

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class About:
    """What an alert is about. `key` names it: of one key one alert is open at most."""

    kind: AlertKind
    key: str
    job: str | None = None
    provider: str | None = None
    credential: str | None = None
    run_id: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """An alert that is open."""

    id: int
    about: About
    opened_at: datetime
    told_at: datetime
    reminders: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A notice that is to be told, in words. `standing` is None for what is not written down yet."""

    notice: Notice
    about: About
    subject: str
    body: str
    standing: Standing | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A notice that this process has told of, and nobody else has."""

    alert_id: int
    change: Change


ABOUT = tuple(field.name for field in fields(About))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be written: notices to tell, alerts to close without a word, and such to date anew.

    `seen` is the newest alert's id when the facts were read. An alert that was closed without a word is
    not told of again within `quiet`.
    """

    tell: tuple[Change, ...] = ()
    close: tuple[Standing, ...] = ()
    redate: tuple[Standing, ...] = ()
    seen: int = 0
    quiet: timedelta = timedelta(0)

    def __bool__(self) -> bool:
        return bool(self.tell or self.close or self.redate)


def write_down(connection: Connection, about: About, message: str, *, now: datetime) -> None:
    """Keep what a transaction has met, with that transaction, for whoever tells of it at the next beat.

    It is of a kind that does not last; of such there are `MOST_UNTOLD` at most, and the rest is left out.
    """
    untold = select(func.count()).where(alerts.c.kind == about.kind, alerts.c.resolved_at.is_(None))
    if connection.execute(untold).scalar_one() < MOST_UNTOLD:
        row = _row(about, message, now) | {"resolved_at": None}
        connection.execute(insert_or_ignore(connection.dialect.name, alerts).values(row))


def tell(
    connection: Connection,
    verdict: Verdict,
    *,
    to: Sequence[str],
    now: datetime,
    gathered: Callable[[Sequence[Told]], Sequence[Told]],
) -> tuple[Told, ...]:
    """Write a verdict, and a delivery to each target of `to` for each notice; return what was told.

    What another process, or an earlier moment of this one, has written already is left out: of an alert that
    is over by now, or was reminded of, nobody is told twice. `gathered` makes fewer notices of many.
    """
    for standing in verdict.close:
        at = now if now != standing.told_at else now + _TICK
        _update(connection, standing, resolved_at=at)
    for standing in verdict.redate:
        _update(connection, standing, told_at=now, opened_at=min(now, standing.opened_at))
    written = ((_write(connection, change, verdict, now), change) for change in verdict.tell)
    told = tuple(Told(alert_id, change) for alert_id, change in written if alert_id is not None)
    rows = [_delivery(each, target, now) for each in gathered(told) for target in to]
    if rows:
        connection.execute(insert(deliveries), rows)
    return told


def _write(connection: Connection, change: Change, verdict: Verdict, now: datetime) -> int | None:
    """Write one notice's alert; return its id, None where it is told of already."""
    standing = change.standing
    if standing is None:
        return _open(connection, change, verdict, now)
    at = max(now, standing.opened_at)  # the clock may have been set back
    match change.notice:
        case Notice.OPENED:
            done = _update(connection, standing, told_at=at, resolved_at=at, message=change.subject)
        case Notice.REMINDER:
            done = _update(connection, standing, told_at=at, reminders=standing.reminders + 1)
        case Notice.RESOLVED:
            done = _update(connection, standing, told_at=at, resolved_at=at)
    return standing.id if done else None


def _update(connection: Connection, standing: Standing, **values: object) -> bool:
    """Change an alert that stands as it was seen; returns whether it did."""
    as_seen = and_(
        alerts.c.id == standing.id, alerts.c.told_at == standing.told_at, alerts.c.resolved_at.is_(None)
    )
    return connection.execute(update(alerts).where(as_seen).values(values)).rowcount == 1


def _open(connection: Connection, change: Change, verdict: Verdict, now: datetime) -> int | None:
    about, lasts = change.about, change.about.kind.lasts
    before = connection.execute(
        select(alerts.c.id, alerts.c.told_at, alerts.c.resolved_at)
        .where(alerts.c.key == about.key)
        .order_by(alerts.c.id.desc())
        .limit(1)
    ).one_or_none()
    if before is not None and (before.id > verdict.seen or not lasts):
        return None
    closed_quietly = before is not None and before.resolved_at not in (None, before.told_at)
    if before is not None and closed_quietly and now - before.told_at < verdict.quiet:
        connection.execute(update(alerts).where(alerts.c.id == before.id).values(resolved_at=None))
        return None
    row = _row(about, change.subject, now) | {"resolved_at": None if lasts else now}
    query = insert_or_ignore(connection.dialect.name, alerts).values(row).returning(alerts.c.id)
    alert_id: int | None = connection.execute(query).scalar_one_or_none()
    return alert_id


def _row(about: About, message: str, now: datetime) -> dict[str, object]:
    named = {name: getattr(about, name) for name in ABOUT}
    return named | {"message": message, "opened_at": now, "told_at": now}


def _delivery(told: Told, target: str, now: datetime) -> dict[str, object]:
    change = told.change
    return {
        "alert_id": told.alert_id,
        "notice": change.notice,
        "target": target,
        "state": DeliveryState.PENDING,
        "idempotency_key": new_key(),
        "next_attempt_at": now,
        "subject": change.subject,
        "body": change.body,
        "created_at": now,
    }
