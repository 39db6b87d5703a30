"""Random states of credentials: providers, secrets, logins, uses and marks, written by the store's verbs."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy import Connection

from jobs.attempt import Attempt, Purpose, Step, Wait
from jobs.credential import Credential, CredentialKind, Strategy
from jobs.definition import Job
from jobs.errors import ErrorClass
from jobs.providers.answer import WaitHint
from jobs.providers.pool import Habits
from jobs.providers.recovery import RECOVERY
from jobs.providers.registry import LOGIN_LABEL, Provider, Registry
from jobs.providers.rows import CredentialRow, OAuthRow, ProviderRow
from jobs.providers.settle import settle_failure, settle_success
from jobs.providers.vault import Vault
from jobs.secret import Secret
from jobs.store import attempts, credentials, tokens
from jobs.store.attempts import Failure, Place
from jobs.store.tokens import SealedTokens
from jobs.target import Target

MODELS = ("large", "small")
MARKED = tuple(sorted(each for each, row in RECOVERY.items() if row.scope is not None))
STRATEGIES = (Strategy.FILL_FIRST, Strategy.FILL_FIRST, Strategy.ROUND_ROBIN, Strategy.LEAST_USED)
TIMEOUT = timedelta(seconds=8)
# No mark of any length that was made so long ago ends within the next 10 s, while a run is under way.
AGES = (2, 2, 2, 90, 400, 2_000, 4_000, 8_000, 20_000, 100_000)


@dataclass(frozen=True, slots=True)
class State:
    """One random configuration. `keys` says what a credential signs with, by (provider, label)."""

    number: int
    registry: Registry
    job: Job
    environ: dict[str, str]
    keys: dict[tuple[str, str], str]


def draw_state(random: Random, number: int, origin: str, token_url: str) -> State:
    """Draw providers with their secrets, and a chain of one to six targets over them."""
    registry, environ, keys = Registry(), dict[str, str](), dict[tuple[str, str], str]()
    names = [f"p{number}-{letter}" for letter in "abc"[: random.randint(1, 3)]]
    for name in names:
        row = _draw_provider(random, f"{origin}/{name}/v1", token_url)
        registry.add(name, row)
        secrets = [f"key-of-{name}-{n}" for n in range(len(row.credentials))]
        for n, each in enumerate(row.credentials):
            if each.key is not None and random.random() < 0.8:
                secret = secrets[0] if random.random() < 0.1 else secrets[n]
                environ[each.key.removeprefix("env:")] = keys[name, each.label] = secret
        keys[name, "none"] = "no-key-required"
    places = [(name, model) for name in names for model in MODELS]
    chain = tuple(
        registry.target(*place) for place in random.sample(places, random.randint(1, min(6, len(places))))
    )
    on = frozenset({ErrorClass.CONFIG_ERROR}) if random.random() < 0.3 else frozenset[ErrorClass]()
    job = Job(f"job-{number}", "What is new?", chain, fallback_on=on, timeout=TIMEOUT)
    return State(number, registry, job, environ, keys)


def _draw_provider(random: Random, base_url: str, token_url: str) -> ProviderRow:
    if random.random() < 0.07:
        return ProviderRow(base_url=base_url, auth="none")
    rows = [
        CredentialRow(
            label=f"key-{n}",
            key=f"env:{base_url.split('/')[-2].replace('-', '_').upper()}_{n}",
            quota_group=random.choice((None, None, "team")),
        )
        for n in range(random.choice((0, 1, 1, 2, 3)))
    ]
    if not rows or random.random() < 0.35:
        oauth = OAuthRow(token_url=token_url, client_id="app")
        login = CredentialRow(label=LOGIN_LABEL, oauth=oauth, quota_group=random.choice((None, "team")))
        rows.insert(random.randint(0, len(rows)), login)
    return ProviderRow(base_url=base_url, credentials=tuple(rows), strategy=random.choice(STRATEGIES))


def write_state(connection: Connection, state: State, vault: Vault, random: Random, *, now: datetime) -> None:
    """Write logins, then uses, refusals, successes and resets of the past, in the order of time."""
    for provider in {target.provider: None for target in state.job.chain}:
        known = state.registry.provider(provider)
        for credential in known.credentials:
            if credential.kind is CredentialKind.OAUTH:
                _write_login(connection, state, vault, known, credential, random, now)
        for age in sorted(random.choices(AGES, k=random.choice((0, 1, 3, 5))), reverse=True):
            _write_past(connection, vault, known, random, now - timedelta(seconds=age), now)


def _write_login(
    connection: Connection,
    state: State,
    vault: Vault,
    provider: Provider,
    credential: Credential,
    random: Random,
    now: datetime,
) -> None:
    """Write a login, or none: fresh, stale, or ended; with a refresh token, without, or with a spent one."""
    if random.random() < 0.15:
        return
    left = timedelta(minutes=random.choice((30, 30, 2, -1, -1)))
    refresh = f"refresh-of-{provider.name}" if random.random() < 0.8 else None
    state.keys[provider.name, credential.label] = f"access-of-{provider.name}"
    credentials.ensure(connection, credential, (provider.name,), now=now)
    spender = _sent(connection, provider, credential, MODELS[0], now - timedelta(hours=2), Purpose.REFRESH)
    tokens.save_login(
        connection,
        SealedTokens(
            provider=provider.name,
            label=credential.label,
            login_id=provider.name,
            generation=1,
            access_token=vault.keyring.seal(Secret(f"access-of-{provider.name}")),
            refresh_token=vault.keyring.seal(Secret(refresh)) if refresh else None,
            client_id="app",
            account_id=None,
            issued_at=now + left - timedelta(hours=1),
            expires_at=now + left,
            spent_by=spender.id if random.random() < 0.15 else None,
        ),
    )


def _write_past(
    connection: Connection, vault: Vault, provider: Provider, random: Random, then: datetime, now: datetime
) -> None:
    """Write something that happened to one of a provider's credentials: mostly a failure, with its mark."""
    credential, model = random.choice(provider.credentials), random.choice(MODELS)
    what = random.random()
    if what < 0.08:
        attempt = _sent(connection, provider, credential, model, then)
        settle_success(connection, attempt, http_status=200, request_id=None, latency=0.1)
    elif what < 0.1:
        credentials.reset(connection, [(provider.name, credential.label)], now=then)
    else:
        _write_failure(connection, vault, provider, credential, model, random, then, now)


def _write_failure(
    connection: Connection,
    vault: Vault,
    provider: Provider,
    credential: Credential,
    model: str,
    random: Random,
    then: datetime,
    now: datetime,
) -> None:
    error_class = random.choice(MARKED)
    stated = timedelta(seconds=random.choice((-50, 300, 90_000)))
    todays = random.random() < 0.8
    fingerprint = _fingerprint(connection, vault, provider, credential, then) if todays else "old"
    for second in range(RECOVERY[error_class].marks_after):
        moment = then - timedelta(milliseconds=100 * (3 - second))
        attempt = _sent(connection, provider, credential, model, moment, fingerprint=fingerprint)
        settle_failure(
            connection,
            vault,
            provider,
            attempt,
            Failure(error_class, "*/drawn", "drawn", code=random.choice((None, "1113"))),
            wait=WaitHint(now + stated, "retry-after") if random.random() < 0.3 else None,
            chosen=Step.NEXT_TARGET,
            onward=Step.STOP,
            habits=Habits(),
            now=moment,
        )


def _fingerprint(
    connection: Connection, vault: Vault, provider: Provider, credential: Credential, now: datetime
) -> str:
    """Return today's fingerprint of a credential; "old" where nobody can read it."""
    looked = {each.credential.label: each for each in vault.look(connection, provider, now=now)}
    each: Any = looked.get(credential.label)
    return getattr(each, "fingerprint", "old")


def _sent(
    connection: Connection,
    provider: Provider,
    credential: Credential,
    model: str,
    at: datetime,
    purpose: Purpose = Purpose.MAIN,
    fingerprint: str = "old",
) -> Attempt:
    assert provider.base_url is not None
    target = Target(provider.name, model, provider.base_url, provider.api_mode)
    credentials.ensure(connection, credential, (), now=at)
    attempt_id = attempts.insert_sent(
        connection,
        Place(None, 1, purpose, 0),
        target,
        credential,
        base_url=target.base_url,
        wait=Wait(),
        now=at,
    )
    return Attempt(
        attempt_id, target, 0, credential, purpose, target.base_url, target.api_mode, at, None, fingerprint
    )
