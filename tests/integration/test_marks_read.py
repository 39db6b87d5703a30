"""How marks are judged when they are read, and what is kept of an answer (hard rules 4 to 6)."""

from datetime import timedelta

import pytest
from sqlalchemy import Connection, update
from sqlalchemy.exc import IntegrityError
from support.ledger import DAY, HOUR, MINUTE, NOW, SECOND, key_of, send, target_of
from support.marks import earned, is_open, refuse

from jobs.attempt import Step
from jobs.credential import Credential, Readable
from jobs.errors import ErrorClass
from jobs.mark import FOR_EVER, Status
from jobs.providers.pool import closure
from jobs.providers.recovery import RECOVERY
from jobs.store import attempts as attempt_verbs
from jobs.store import credentials
from jobs.store.attempts import Failure
from jobs.store.tables import attempts

# Rule 4: the only credential of a provider.

SHORT = {ErrorClass.RATE_LIMIT, ErrorClass.AUTH, ErrorClass.PERMISSION, ErrorClass.UNKNOWN}


@pytest.mark.parametrize("error_class", [c for c, row in RECOVERY.items() if row.scope is not None])
def test_an_only_credential_is_closed_by_default_times_for_a_minute_at_most(
    db: Connection, error_class: ErrorClass
) -> None:
    """For four classes; money, windows and death keep their times."""
    for _ in range(2):
        mark = refuse(db, error_class)
    assert mark is not None
    long = mark.until is None or mark.until > mark.made_at + MINUTE

    after_a_minute = mark.made_at + MINUTE

    assert is_open(db, after_a_minute, only=True) == (error_class in SHORT or not long)
    assert is_open(db, after_a_minute, only=False) == (not long)


def test_a_stated_time_closes_an_only_credential_as_long_as_it_says(db: Connection) -> None:
    """The provider knows."""
    refuse(db, ErrorClass.RATE_LIMIT, until=NOW + HOUR)

    assert not is_open(db, NOW + 59 * MINUTE, only=True)


def test_an_invalid_only_credential_stays_closed(db: Connection) -> None:
    """There is no time to cut."""
    refuse(db, ErrorClass.AUTH)
    refuse(db, ErrorClass.AUTH, started=NOW + 2 * MINUTE)

    assert not is_open(db, NOW + DAY, only=True)


# Rule 5: status is computed.


def test_a_mark_whose_time_has_passed_is_not_there(db: Connection) -> None:
    """Its row is; nothing sweeps."""
    mark = refuse(db, ErrorClass.RATE_LIMIT)
    assert mark is not None
    assert mark.until is not None

    assert not is_open(db, mark.until - SECOND)
    assert is_open(db, mark.until)
    assert credentials.count_marks(db) == 1


def test_a_changed_secret_is_open_at_once(db: Connection) -> None:
    """The mark was made for the old one; and the old one, put back, is still refused."""
    refuse(db, ErrorClass.AUTH_DEAD, fingerprint="old")

    assert is_open(db, NOW + MINUTE, fingerprint="new")
    assert not is_open(db, NOW + MINUTE, fingerprint="old")


def test_a_changed_secret_stands_on_the_first_rung(db: Connection) -> None:
    """What its predecessor earned is not its fault."""
    refuse(db, ErrorClass.AUTH, fingerprint="old")
    refuse(db, ErrorClass.AUTH, started=NOW + 10 * MINUTE, fingerprint="old")

    mark = refuse(db, ErrorClass.AUTH, started=NOW + 20 * MINUTE, fingerprint="new")

    assert mark is not None
    assert (mark.step, mark.status, mark.fingerprint) == (1, Status.EXHAUSTED, "new")


def test_a_late_refusal_of_the_old_secret_says_nothing_of_the_new_one(db: Connection) -> None:
    """Its request left before the new one was refused."""
    slow = send(db, at=NOW, fingerprint="old")
    refuse(db, ErrorClass.AUTH, started=NOW + SECOND, fingerprint="new")

    credentials.mark(db, slow, earned(ErrorClass.AUTH), now=NOW + MINUTE)

    assert not is_open(db, NOW + 2 * MINUTE, fingerprint="new")


def test_a_fingerprint_under_a_new_key_keeps_its_marks(db: Connection) -> None:
    """Rotating `secret_key` forgives nothing."""
    refuse(db, ErrorClass.AUTH_DEAD, fingerprint="under the old key")

    credentials.ensure(db, key_of(), ("under the new key", "under the old key"), now=NOW)

    assert not is_open(db, NOW + MINUTE, fingerprint="under the new key")


def test_a_mark_on_a_group_closes_its_members_of_one_provider_only(db: Connection) -> None:
    """Members are derived when read, never marked themselves."""
    refuse(db, ErrorClass.QUOTA_BILLING, credential=key_of(group="team"))
    found = credentials.all_marks(db)

    def closed(credential: Credential, provider: str = "zai") -> bool:
        readable = Readable(credential, None, ("any",))
        of_provider = [mark for mark in found if mark.provider == provider]
        target = target_of(provider=provider)
        why = closure(readable, of_provider, target, only_credential=False, now=NOW + MINUTE)
        return why is not None

    assert closed(key_of("second", group="team"))
    assert not closed(key_of("third"))
    assert not closed(key_of("team"))
    assert not closed(key_of(provider="openai", group="team"), "openai")


def test_an_invalid_credential_has_no_known_opening(db: Connection) -> None:
    """`FOR_EVER` stands for it."""
    mark = refuse(db, ErrorClass.AUTH_DEAD)

    assert mark is not None
    assert mark.closed_until(NOW, fingerprints=("f1",), only_credential=True) == FOR_EVER


# Rule 6: what is stored of an answer.


def test_a_message_is_cut_at_200_characters(db: Connection) -> None:
    """By the verb, and by the database where a verb forgets."""
    attempt = send(db)
    failure = Failure(ErrorClass.AUTH, "*/status-401", "m" * 1000)

    attempt_verbs.settle_failed(db, attempt, failure, recovery=Step.STOP)

    (message,) = db.execute(attempts.select().with_only_columns(attempts.c.message)).scalars()
    assert message == "m" * 200
    with pytest.raises(IntegrityError, match="message_is_short"), db.begin_nested():
        db.execute(update(attempts).values(message="m" * 201))


def test_times_in_the_future_are_kept_to_the_microsecond(db: Connection) -> None:
    """UTC in, UTC out."""
    until = NOW + timedelta(hours=3, microseconds=123456)

    mark = refuse(db, ErrorClass.QUOTA_WINDOW, until=until)

    assert mark is not None
    assert (mark.until, mark.until_source) == (until, "retry-after")
