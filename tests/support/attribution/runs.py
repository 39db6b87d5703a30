"""Runs of the randomised world: chains in chains, many at once, while an operator turns at every key."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, update

from jobs import clock
from jobs.attempt import Purpose
from jobs.errors import ErrorClass
from jobs.events import AttributionWasRefused, Event, Events
from jobs.providers.call import Answered, Call, ChainExhausted, Drill
from jobs.providers.chain import Chain
from jobs.providers.gates import Gates
from jobs.providers.oauth import Refresher
from jobs.providers.registry import Registry
from jobs.providers.rules import Rules
from jobs.providers.secrets import Keyring, SecretReader
from jobs.providers.services import Services
from jobs.providers.vault import Vault
from jobs.request import Request
from jobs.secret import Redactor, Secret
from jobs.store import credentials, tokens
from jobs.store.store import Store
from jobs.store.tables import marks, runs
from jobs.store.tokens import SealedTokens
from jobs.target import Target
from support.attribution.accounts import MODELS, Account, Holder, World, register
from support.attribution.client import ScriptedClient
from support.attribution.journal import keep_journal
from support.attribution.record import Record
from support.ledger import make_database, url_of

SECRET_KEY = "the key of fingerprints and tokens at rest"
AT_ONCE = 192
LONGEST_CHAIN = 7  # two more than may be asked
REQUESTS_PER_TURN_OF_A_KEY = 6
LIFETIMES = (7200, 240, -1)  # seconds: fresh, stale and still good, over
MakeStore = Callable[[str, Record, Registry], Store]


@dataclass
class Stage:
    """Everything that takes part, joined as the composition root joins it, but for the client."""

    world: World
    record: Record
    services: Services
    chain: Chain
    client: ScriptedClient
    seed: int
    rows: Iterator[int]

    def rng(self, of: str) -> random.Random:
        """Return a stream of choices of its own."""
        return random.Random(f"{of} {self.seed}")


def store_of(url: str, _record: Record, _registry: Registry) -> Store:
    """Return the store as it is."""
    return Store(url)


@asynccontextmanager
async def open_stage(
    path: Path, world: World, seed: int, requests: int, make_store: MakeStore
) -> AsyncIterator[Stage]:
    """Open everything on a new database with a journal, with every login made."""
    make_database(path).dispose()
    keep_journal(path, world.lonely(), runs=2 * requests)
    record, redactor = Record(), Redactor()
    registry = register(world, random.Random(f"names {seed}"))
    vault = Vault(SecretReader(world.environ, redactor), Keyring([Secret(SECRET_KEY)]))
    store, client = make_store(url_of(path), record, registry), ScriptedClient(record, seed)
    refresher = Refresher(store=store, client=client, keyring=vault.keyring, redactor=redactor)  # type: ignore[arg-type]
    services = Services(
        registry=registry,
        rules=Rules.load_builtin(),
        store=store,
        vault=vault,
        client=client,  # type: ignore[arg-type]
        refresher=refresher,
        gates=Gates(),
        events=Events(partial(_hear, record)),
        redactor=redactor,
    )
    stage = Stage(world, record, services, Chain(services), client, seed, count(1))
    try:
        for account, holder in _logins(world):
            await log_in(stage, account, holder)
        yield stage
    finally:
        await refresher.close()
        await asyncio.to_thread(store.close)


def _hear(record: Record, event: Event) -> None:
    if isinstance(event, AttributionWasRefused):
        record.complain(f"the database refused a mark: {event.message}")


def _logins(world: World) -> list[tuple[Account, Holder]]:
    return [(account, each) for account in world.accounts.values() for each in account.holders if each.login]


async def log_in(
    stage: Stage, account: Account, holder: Holder, *, lifetime: timedelta = timedelta(hours=1)
) -> None:
    """Store a login as `auth login` does, begun an hour ago, with so much left."""
    known = stage.services.registry.provider(stage.services.registry.canonical(account.spellings[0]))
    (credential,) = (each for each in known.credentials if each.label == holder.label)
    keyring, now = stage.services.vault.keyring, clock.utcnow()
    access, refresh = (stage.client.new_token(account.name, holder.label) for _ in range(2))
    login = SealedTokens(
        provider=credential.provider,
        label=credential.label,
        login_id=f"login {access}",
        generation=1,
        access_token=keyring.seal(Secret(access)),
        refresh_token=keyring.seal(Secret(refresh)),
        client_id="app",
        account_id=None,
        issued_at=now - timedelta(hours=1),
        expires_at=now + lifetime,
    )

    def keep(connection: Connection) -> None:
        credentials.ensure(connection, credential, (login.login_id,), now=now)
        credentials.lift_fingerprint(connection, credential)
        tokens.save_login(connection, login)

    await stage.services.store.write(keep)


async def keep_running(stage: Stage, requests: int) -> None:
    """Run until so many requests were answered, or something is known to be wrong; every run is ended."""
    numbers = iter(range(10**9))

    async def work() -> None:
        while stage.record.answered < requests and not stage.record.wrong:
            await _Run(stage, next(numbers)).go()

    operator = asyncio.create_task(_turn_keys(stage))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    finally:
        operator.cancel()
        await asyncio.wait([operator])
    if not operator.cancelled() and operator.exception():
        stage.record.complain(f"the operator could not go on: {operator.exception()!r}")


class _Run:
    """One run: its main call, and what hangs on it."""

    def __init__(self, stage: Stage, number: int) -> None:
        self._stage = stage
        self._rng = random.Random(f"run {number} {stage.seed}")
        self._run_id: int | None = None
        self._tries = 1
        self._drill: Drill | None = None

    async def go(self) -> None:
        """Ask; repair, title or try again, as it comes."""
        rng, main, kind = self._rng, self._chain(), self._rng.random()
        if kind < 0.9:
            self._run_id = next(self._stage.rows)
        if kind < 0.03:
            self._drill = Drill({main[0].provider: rng.choice(list(ErrorClass))})
        answered = await self._ask(main, through_closed=0.8 < kind < 0.85)
        if answered is None and self._drill is None and rng.random() < 0.3:
            await self._begin_again()
            answered = await self._ask(main)
        if answered is not None and rng.random() < 0.15:
            await self._ask(main, purpose=Purpose.REPAIR, first=answered.attempt.target_index)
        if answered is not None and rng.random() < 0.15:
            await self._ask((*self._chain(), *main), purpose=Purpose.TITLE)

    async def _begin_again(self) -> None:
        """Begin the run's next try: the one before sends nothing more, and a refresh it left is of no run.

        A drill has one try only (schedules.md), so that whatever it sends can be told by its run.
        """
        self._tries += 1
        if self._run_id is not None:
            again = update(runs).where(runs.c.id == self._run_id).values(tries=self._tries)
            await self._stage.services.store.write(lambda connection: connection.execute(again).rowcount)

    def _chain(self) -> tuple[Target, ...]:
        """Return a chain in any spelling, with repetitions; what each name means is checked at once."""
        rng, stage = self._rng, self._stage
        accounts = list(stage.world.accounts.values())
        weights = [2 if account.token_url else 1 for account in accounts]  # logins have more to show
        targets: list[Target] = []
        for _ in range(rng.randint(2, LONGEST_CHAIN)):
            account = rng.choices(accounts, weights)[0]
            target = stage.services.registry.target(rng.choice(account.spellings), rng.choice(MODELS))
            if (target.provider, target.base_url) != (account.name, account.base_url):
                stage.record.complain(f"{account.spellings} became {target.provider} at {target.base_url}")
            targets.append(replace(target, larger_context=rng.random() < 0.2))
            if rng.random() < 0.25:
                targets.append(replace(targets[rng.randrange(len(targets))], model=rng.choice(MODELS)))
        return tuple(targets[:LONGEST_CHAIN])

    async def _ask(self, targets: tuple[Target, ...], **fields: Any) -> Answered | None:
        rng = self._rng
        call = Call(
            targets,
            clock.monotonic() + rng.choice((0.5, 2, 5)),
            run_id=self._run_id,
            tries=self._tries,
            shrink=self._shrink if rng.random() < 0.7 else None,
            fallback_on=frozenset({ErrorClass.CONTENT_FILTER} if rng.random() < 0.5 else ()),
            repeat_safe=rng.random() < 0.5,
            drill=self._drill,
            waits=False,
            **fields,
        )
        with self._stage.record.calling(call) as heard:
            try:
                answered = await self._stage.chain.complete(Request("What is new?"), call)
            except ChainExhausted:
                return None
        asked = self._stage.record.by_attempt.get(answered.attempt.id)
        if asked is None or asked.heard is not heard or asked.said != answered.completion.text:
            self._stage.record.complain(f"attempt {answered.attempt.id} was given another one's answer")
        return answered

    async def _shrink(self, request: Request, _error_class: ErrorClass) -> Request:
        """Have it made smaller by a chain inside the chain, which may itself find it too long."""
        if await self._ask(self._chain(), purpose=Purpose.COMPRESSION) is None:
            raise ChainExhausted(())
        return replace(request, prompt="What?")


async def _turn_keys(stage: Stage) -> None:
    """Let time pass, reset, rotate, log in again: the more, the more is asked."""
    rng, turned = stage.rng("operator"), 0
    turns = (*[_time_passes] * 8, *[_reset] * 6, *[_rotate] * 4, *[_log_in_again] * 5, _begin_outage)
    while True:
        while turned * REQUESTS_PER_TURN_OF_A_KEY < stage.record.answered:
            turned += 1
            await rng.choice(turns)(stage, rng)
        await asyncio.sleep(0.005)


async def _time_passes(stage: Stage, rng: random.Random) -> None:
    """Let the time of some provider's marks be over: nothing else about them changes."""
    names = rng.sample(list(stage.world.accounts), k=12)
    now = clock.utcnow()
    over = (
        update(marks).where(marks.c.provider.in_(names), marks.c.until > bindparam("now")).values(until=now)
    )
    await stage.services.store.write(lambda connection: connection.execute(over, {"now": now}).rowcount)


async def _reset(stage: Stage, rng: random.Random) -> None:
    chosen = [
        (account.name, holder.label)
        for account in rng.sample(list(stage.world.accounts.values()), k=4)
        for holder in rng.sample(account.holders, k=rng.randint(1, len(account.holders)))
    ]
    await stage.services.store.write(credentials.reset, chosen, now=clock.utcnow())


async def _rotate(stage: Stage, rng: random.Random) -> None:
    """Put another secret into a variable, or none at all where it can do without for a while."""
    world = stage.world
    variable = rng.choice(list(world.vintages))
    if variable in world.flaky and rng.random() < 0.3:
        world.environ.pop(variable, None)
    else:
        world.environ[variable] = rng.choice(world.vintages[variable])


async def _log_in_again(stage: Stage, rng: random.Random) -> None:
    account, holder = rng.choice(_logins(stage.world))
    await log_in(stage, account, holder, lifetime=timedelta(seconds=rng.choice(LIFETIMES)))


async def _begin_outage(stage: Stage, rng: random.Random) -> None:
    """Let an endpoint lose the next few requests: three in a row close it."""
    stage.client.outages[rng.choice(list(stage.world.accounts))] = rng.randint(2, 8)
