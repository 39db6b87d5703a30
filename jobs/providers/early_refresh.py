"""Refreshing logins before a run needs them, outside of runs; and a warning before a grant ends."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.attempt import Purpose
from jobs.credential import CredentialKind, Readable
from jobs.events import GrantEnding, WriteFailed
from jobs.mark import Mark
from jobs.names import ProviderName
from jobs.providers.call import Call, Progress
from jobs.providers.login_times import due_at, ends_at, is_ending
from jobs.providers.oauth import OF_A_REFRESH
from jobs.providers.services import Services
from jobs.providers.stay import Stay
from jobs.request import Request
from jobs.store import credentials, tokens
from jobs.store.engine import kind_of
from jobs.store.tokens import SealedTokens
from jobs.target import Target

LOOK_EVERY = timedelta(seconds=30)
SHORTEST_PAUSE = timedelta(seconds=0.2)
TRY_AGAIN_AFTER = timedelta(seconds=60)
_TIMEOUT = timedelta(seconds=90)
_LONGEST_TOLD = 500
_NOTHING = Request("")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Login:
    """A login as it can be used now, and its row."""

    readable: Readable
    sealed: SealedTokens

    @property
    def key(self) -> tuple[str, int]:
        """What tells this token from the one before it and the one after."""
        return self.sealed.login_id, self.sealed.generation


class EarlyRefresh:
    """Keeps the logins of the given targets' providers fresh while they are still valid.

    A login that has ended already is left to the run that needs it: its refresh then stands in that run. One
    that an operator must mend is left alone, and so is one whose provider no chain names.
    """

    def __init__(self, services: Services, targets: Iterable[Target]) -> None:
        self._services = services
        found: dict[ProviderName, Target] = {}
        for target in targets:
            found.setdefault(target.provider, target)
        self._targets: Mapping[ProviderName, Target] = MappingProxyType(found)
        self._not_before: dict[tuple[str, int], datetime] = {}

    async def watch(self) -> None:
        """Refresh and warn when it is time, until cancelled; whatever goes wrong is told and tried again."""
        while True:
            try:
                pause = await self.look()
            except DBAPIError as exc:
                self._services.events.emit(WriteFailed(kind_of(exc), type(exc).__name__))
                pause = LOOK_EVERY
            except Exception as exc:  # one login's trouble, or a bug, must not leave all others to go stale
                why = self._services.redactor.clean(f"{type(exc).__name__}: {exc}"[:_LONGEST_TOLD])
                logger.error("logins could not be looked after, and will be again: %s", why)
                pause = LOOK_EVERY
            await asyncio.sleep(pause.total_seconds())

    async def look(self) -> timedelta:
        """Do what is due now; return how long nothing will be, as far as is known."""
        logins = await self._services.store.read(
            open_logins, self._services, tuple(self._targets), now=clock.utcnow()
        )
        for login in logins:
            await self._warn(login)
        times = {login: when for login in logins if (when := self._due(login)) is not None}
        now = clock.utcnow()
        due = [login for login, when in times.items() if when <= now]
        await asyncio.gather(*(self._refresh(login) for login in due))
        following = min((when for when in times.values() if when > now), default=now + LOOK_EVERY)
        return max(SHORTEST_PAUSE, min(LOOK_EVERY, following - clock.utcnow()))

    def _due(self, login: Login) -> datetime | None:
        """Return when to refresh a login, the next try after a failed one included."""
        when, end = due_at(login.sealed), login.sealed.expires_at
        if when is None or end is None:
            return None
        when = max(when, self._not_before.get(login.key, when))
        return when if max(when, clock.utcnow()) < end else None

    async def _refresh(self, login: Login) -> None:
        """Refresh as a run would, and settle it alike: attempt, marks and new token in one transaction."""
        self._not_before = {login.key: clock.utcnow() + TRY_AGAIN_AFTER, **self._still_ahead()}
        target = self._targets[login.readable.credential.provider]
        deadline = clock.monotonic() + _TIMEOUT.total_seconds()
        call = Call((target,), deadline, purpose=Purpose.REFRESH, waits=False)
        stay = Stay(self._services, Progress(call, _NOTHING))
        # It counts as stale: an endpoint that is out of order leaves it in use while it is still valid.
        await stay.refresh(replace(login.readable, stale=True))

    def _still_ahead(self) -> dict[tuple[str, int], datetime]:
        now = clock.utcnow()
        return {key: when for key, when in self._not_before.items() if when > now}

    async def _warn(self, login: Login) -> None:
        """Say once, whatever restarts meanwhile, that a login's grant is about to end."""
        now, end = clock.utcnow(), ends_at(login.sealed)
        if end is None or login.sealed.grant_warned_at is not None or not is_ending(login.sealed, now=now):
            return
        if await self._services.store.write(tokens.note_warning, login.sealed, now=now):
            credential = login.readable.credential
            self._services.events.emit(GrantEnding(credential.provider, credential.label, end))


def open_logins(
    connection: Connection, services: Services, providers: Iterable[ProviderName], *, now: datetime
) -> list[Login]:
    """Return the logins of some providers that can be read and that no refusal stands against."""
    found = []
    for name in providers:
        marks = credentials.marks_of(connection, name)
        for each in services.vault.look(connection, services.registry.provider(name), now=now):
            if not isinstance(each, Readable) or each.credential.kind is not CredentialKind.OAUTH:
                continue
            sealed = tokens.load(connection, name, each.credential.label)
            if sealed is not None and not _is_refused(each, marks, now):
                found.append(Login(each, sealed))
    return found


def _is_refused(readable: Readable, marks: Sequence[Mark], now: datetime) -> bool:
    """Say whether a refresh has just failed, or an operator has to mend the login."""
    return any(
        mark.credential == readable.credential.label
        and (mark.lasting or mark.error_class in OF_A_REFRESH)
        and mark.closed_until(now, fingerprints=readable.fingerprints, only_credential=False)
        for mark in marks
    )
