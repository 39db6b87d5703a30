"""What is wrong now, and what is to be told of it: pure rules over facts, configuration and the time."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar
from zoneinfo import ZoneInfo

from jobs.alert import AlertKind, AlertPolicy
from jobs.credential import Credential, CredentialKind
from jobs.errors import ErrorClass
from jobs.providers.login_times import warns_at
from jobs.providers.registry import Provider
from jobs.providers.vault import Vault
from jobs.store.alert_facts import AbandonedRun, ClosedCredential, Facts, FailingJob, HeldJobs
from jobs.store.alerts import About, Standing
from jobs.store.tokens import SealedTokens

NEWS_WITHIN = timedelta(hours=24)
"""Abandoned runs and refused marks that are older are no news, whoever finds them."""

BACK_WITHIN = timedelta(hours=24)
"""How long what only another daemon knows is left to that one, should it be down."""

MOST_AT_ONCE = 500
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Watched:
    """What alerts are about, and who is told: made from the configuration in force.

    `jobs` are the enabled ones, each with its `pause_after_failures`; `credentials` those of all providers
    whom a chain names. What is gone from here is told of no more. Times are told in UTC and in `zone`.
    Whether the secrets of `providers` can be read is asked of `vault`; without one nobody asks.
    """

    policy: AlertPolicy
    jobs: Mapping[str, int | None]
    credentials: tuple[Credential, ...]
    zone: ZoneInfo
    providers: tuple[Provider, ...] = ()
    vault: Vault | None = None

    def credential(self, provider: str, label: str) -> Credential | None:
        """Return a configured credential by its names."""
        return next((c for c in self.credentials if (c.provider, c.label) == (provider, label)), None)

    def threshold(self, job: str) -> int:
        """Return after how many failed runs in a row a job is failing: as they pause it, at the latest."""
        return min(self.policy.after_failures, self.jobs.get(job) or self.policy.after_failures)


@dataclass(frozen=True, slots=True)
class HeldBy:
    """What holds jobs: credentials, as `provider/label`, whichever of their models are closed."""

    names: tuple[str, ...]
    hold_keys: tuple[str, ...]
    held: int
    until: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A mark that the database refused, since its attempt had not earned it."""

    attempt_id: int
    message: str


@dataclass(frozen=True, slots=True)
class Keyless:
    """A provider none of whose secrets can be read now, and why not."""

    provider: str
    why: str


Fact = FailingJob | HeldBy | ClosedCredential | SealedTokens | AbandonedRun | Refusal | Keyless


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong now, with the fact behind it.

    One that does not open keeps an alert open that stands: it is not over yet. One that does not remind is
    known to whoever could mend it.
    """

    about: About
    fact: Fact
    opens: bool = True
    reminds: bool = True


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be told: what opens, what is reminded of, what is over; and what is not told of.

    `tells`: what opens, and was written down already. `close`: what nobody asks about any more. `redate`:
    alerts told at a time that lies far ahead. 500 of each at most: the rest is judged at the next beat, so
    that one write is never long.
    """

    opens: tuple[Trouble, ...] = ()
    reminds: tuple[tuple[Standing, Trouble], ...] = ()
    over: tuple[Standing, ...] = ()
    close: tuple[Standing, ...] = ()
    redate: tuple[Standing, ...] = ()
    tells: tuple[tuple[Standing, Trouble], ...] = ()


def judged(facts: Facts, watched: Watched, keyless: Iterable[Keyless] = (), *, now: datetime) -> Judgement:
    """Compare what is wrong now with what was told, and say what is to be told.

    A lapsed mark, or a hold that was let go before anybody has answered, is not over: no news is no recovery.
    But a hold that has not come back by the time of a reminder is.
    """
    wrong = {each.about.key: each for each in troubles(facts, watched, keyless, now=now)}
    standing = {each.about.key: each for each in facts.open}
    every = watched.policy.remind_every
    due = [each for each in facts.open if now - each.told_at >= every]
    let_go = {each.about.key for each in due if _is_let_go(wrong.get(each.about.key))}
    ended = [each for key, each in standing.items() if key not in wrong or key in let_go]
    over = [each for each in ended if _is_told(each, watched) and not _goes_on(each, wrong.values())]
    told_of = {each.about.key for each in over}
    redate = [each for each in facts.open if each.told_at - now > every]
    return Judgement(
        opens=_some(each for key, each in wrong.items() if key not in standing and each.opens),
        reminds=_some(
            (each, trouble) for each in due if (trouble := wrong.get(each.about.key)) and trouble.reminds
        ),
        over=_some(over),
        close=_some(each for each in ended if each.about.key not in told_of),
        redate=_some(each for each in redate if each.about.key in wrong),
        tells=_some(
            (each, wrong[key]) for key, each in standing.items() if key in wrong and not each.about.kind.lasts
        ),
    )


def left_to_others(found: Judgement, watched: Watched) -> Judgement:
    """Return a judgement without the alerts that only another daemon's configuration knows.

    That one tells their end, which would be told by nobody if they were closed here.
    """
    return replace(found, close=tuple(each for each in found.close if _is_watched(each, watched)))


def _is_let_go(trouble: Trouble | None) -> bool:
    return trouble is not None and isinstance(trouble.fact, HeldBy) and not trouble.fact.held


def _some(all_of_them: Iterable[T]) -> tuple[T, ...]:
    return tuple(islice(all_of_them, MOST_AT_ONCE))


def troubles(
    facts: Facts, watched: Watched, keyless: Iterable[Keyless] = (), *, now: datetime
) -> Iterator[Trouble]:
    """Yield everything that is wrong now with what is watched, whether it was told or not."""
    for each in keyless:
        key = f"provider_keyless:{each.provider}"
        yield Trouble(About(AlertKind.PROVIDER_KEYLESS, key, provider=each.provider), each)
    for untold in facts.open:
        if untold.about.kind is AlertKind.ATTRIBUTION_REFUSED and now - untold.opened_at < NEWS_WITHIN:
            attempt_id = int(untold.about.key.partition(":")[2])
            yield Trouble(untold.about, Refusal(attempt_id, untold.message), opens=False, reminds=False)
    for job in facts.failing:
        if job.name in watched.jobs:
            yield _failing(job, watched)
    yield from _held(facts.held, watched)
    for mark in facts.closed:
        if not mark.replaced and _closes_ours(mark, watched):
            yield _closed(mark)
    for login in facts.logins:
        credential, warns = watched.credential(login.provider, login.label), warns_at(login)
        if credential is not None and credential.kind is CredentialKind.OAUTH and warns is not None:
            yield from _ending(login, warns, now)
    for run in facts.abandoned:
        if run.job in watched.jobs:
            about = About(AlertKind.RUN_ABANDONED, f"run_abandoned:{run.id}", run.job, run_id=run.id)
            yield Trouble(about, run)


def _failing(job: FailingJob, watched: Watched) -> Trouble:
    """A job is failing from its threshold on, and until it has succeeded or was resumed.

    Whoever has paused it needs no reminder; it may also have paused itself, for its failures.
    """
    is_failing = job.failures >= watched.threshold(job.name)
    pauses_itself = watched.jobs[job.name]
    by_hand = job.paused and (pauses_itself is None or job.failures < pauses_itself)
    about = About(AlertKind.JOB_FAILING, f"job_failing:{job.name}", job.name)
    return Trouble(about, job, opens=is_failing, reminds=is_failing and not by_hand)


def _held(held: Iterable[HeldJobs], watched: Watched) -> Iterator[Trouble]:
    """One trouble for each set of closed credentials: whichever of their models, and however many jobs."""
    together: defaultdict[tuple[str, ...], list[HeldJobs]] = defaultdict(list)
    ours = {f"{each.provider}/{each.label}" for each in watched.credentials}
    for each in held:
        together[_names_in(each.hold_key)].append(each)
    for names, those in together.items():
        if ours.isdisjoint(names):
            continue
        until = max((each.until for each in those if each.until is not None), default=None)
        reason = next((each.reason for each in those if each.reason is not None), None)
        keys, number = tuple(each.hold_key for each in those), sum(each.held for each in those)
        about = About(AlertKind.JOB_HELD, f"job_held:{', '.join(names)}")
        fact = HeldBy(names, keys, number, until, reason)
        yield Trouble(about, fact, opens=number > 0, reminds=number > 0)


def _names_in(hold_key: str) -> tuple[str, ...]:
    """Return the credentials that a hold names; one of which a model is closed stands before that model."""
    return tuple(sorted({each.partition(" ")[0] for each in hold_key.split(", ")}))


def _closes_ours(mark: ClosedCredential, watched: Watched) -> bool:
    if mark.credential is not None:
        return watched.credential(mark.provider, mark.credential) is not None
    return any(
        each.provider == mark.provider and mark.quota_group in (None, each.quota_group)
        for each in watched.credentials
    )


def _closed(mark: ClosedCredential) -> Trouble:
    money = mark.error_class is ErrorClass.QUOTA_BILLING
    kind = AlertKind.CREDENTIAL_BILLING if money else AlertKind.CREDENTIAL_DEAD
    named = (mark.credential, mark.quota_group, mark.base_url, mark.model)
    key = ":".join((kind, mark.provider, mark.scope, *(each for each in named if each is not None)))
    return Trouble(About(kind, key, provider=mark.provider, credential=mark.earned_by), mark)


def _ending(login: SealedTokens, warns: datetime, now: datetime) -> Iterator[Trouble]:
    """A login is ending from the moment on at which it is warned of, and until it is renewed.

    While a refresh is under way nobody knows when it ends: an alert stays as it is meanwhile.
    """
    in_flight = login.spent_by is not None and login.lease_until is not None and login.lease_until > now
    if in_flight or warns <= now:
        key = f"login_ending:{login.provider}:{login.label}"
        about = About(AlertKind.LOGIN_ENDING, key, provider=login.provider, credential=login.label)
        yield Trouble(about, login, opens=not in_flight, reminds=not in_flight)


def _is_told(standing: Standing, watched: Watched) -> bool:
    """Say whether somebody is told of an alert's end: it lasts, and is about what the configuration has."""
    return standing.about.kind.lasts and _is_watched(standing, watched)


def _is_watched(standing: Standing, watched: Watched) -> bool:
    """Say whether an alert is about something that the configuration still has."""
    about = standing.about
    if about.job is not None:
        return about.job in watched.jobs
    if about.provider is not None and about.credential is not None:
        return watched.credential(about.provider, about.credential) is not None
    return about.provider is None or any(each.provider == about.provider for each in watched.credentials)


def _goes_on(standing: Standing, wrong: Iterable[Trouble]) -> bool:
    """Say whether what was held by some credentials is held by another set of them now: no recovery."""
    if standing.about.kind is not AlertKind.JOB_HELD:
        return False
    names = set(standing.about.key.partition(":")[2].split(", "))
    sets = (each.fact.names for each in wrong if isinstance(each.fact, HeldBy) and each.fact.held)
    return any(not names.isdisjoint(each) for each in sets)
