"""A mark needs the attempt that earned it: held by the store's verb, and by the database itself."""

from dataclasses import replace

import pytest
from sqlalchemy import Connection, insert, update
from sqlalchemy.exc import IntegrityError
from support.ledger import MINUTE, NOW, key_of, send, target_of
from support.marks import refuse

from jobs.attempt import Attempt
from jobs.errors import AttributionRefused, ErrorClass
from jobs.mark import NewMark, Scope
from jobs.store import credentials
from jobs.store.tables import marks


@pytest.mark.parametrize("scope", Scope)
def test_a_mark_of_every_scope_names_what_its_own_attempt_used(db: Connection, scope: Scope) -> None:
    """And nothing of what its scope does not close."""
    attempt = send(db, key_of(group="team"))

    mark = credentials.mark(db, attempt, NewMark(scope, ErrorClass.UNKNOWN, (MINUTE,)), now=NOW)

    assert mark is not None
    assert (mark.provider, mark.attempt_id) == ("zai", attempt.id)
    assert mark.credential == ("key" if scope.on_credential else None)
    assert mark.quota_group == ("team" if scope.on_group else None)
    assert mark.base_url == (attempt.base_url if scope.on_endpoint else None)
    assert mark.model == ("glm-5" if scope.on_model else None)


def somebody_elses(attempt: Attempt) -> dict[Scope, Attempt]:
    """Return, per scope, the attempt with one thing changed that its row in the database does not say."""
    other = key_of("other", group="others")
    return {
        Scope.CREDENTIAL: replace(attempt, credential=other),
        Scope.GROUP: replace(attempt, credential=other),
        Scope.ENDPOINT: replace(attempt, base_url="https://elsewhere.example/v1"),
        Scope.CREDENTIAL_MODEL: replace(attempt, target=target_of("another")),
        Scope.GROUP_MODEL: replace(attempt, target=target_of(provider="openai-codex")),
        Scope.ENDPOINT_MODEL: replace(attempt, target=target_of("another")),
    }


@pytest.mark.parametrize("scope", Scope)
def test_the_store_refuses_a_mark_that_its_attempt_did_not_earn(db: Connection, scope: Scope) -> None:
    """Another provider, credential, group, endpoint or model than the attempt's row says."""
    attempt = send(db, key_of(group="team"))
    send(db, key_of("other", group="others"))
    forged = somebody_elses(attempt)[scope]

    with pytest.raises(AttributionRefused):
        credentials.mark(db, forged, NewMark(scope, ErrorClass.AUTH, (MINUTE,)), now=NOW)

    assert credentials.count_marks(db) == 0


def row_of(attempt: Attempt, scope: Scope) -> dict[str, object]:
    """Return a correct row of `marks`, to be spoilt."""
    return {
        "scope": scope,
        "provider": "zai",
        "credential": "key" if scope.on_credential else None,
        "quota_group": "team" if scope.on_group else None,
        "base_url": attempt.base_url if scope.on_endpoint else None,
        "model": "glm-5" if scope.on_model else None,
        "error_class": "auth",
        "until_source": "default",
        "step": 1,
        "made_at": NOW,
        "attempt_id": attempt.id,
    }


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("column", ["provider", "credential", "quota_group", "base_url", "model"])
def test_the_database_refuses_a_forged_row_whoever_writes_it(
    db: Connection, scope: Scope, column: str
) -> None:
    """Composite keys hold for what the scope names, the CHECK for what it does not."""
    attempt = send(db, key_of(group="team"))
    send(db, key_of("other", provider="openai"), target_of(provider="openai"))
    row = {**row_of(attempt, scope), column: "openai" if column == "provider" else "other"}

    with pytest.raises(IntegrityError), db.begin_nested():
        db.execute(insert(marks).values(row))


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("column", ["credential", "quota_group", "base_url", "model"])
def test_a_mark_names_all_that_its_scope_closes(db: Connection, scope: Scope, column: str) -> None:
    """A scope without its column would close everything."""
    attempt = send(db, key_of(group="team"))
    row = row_of(attempt, scope)
    if row[column] is None:
        db.execute(insert(marks).values(row))
        return

    with pytest.raises(IntegrityError, match="scope_fits"), db.begin_nested():
        db.execute(insert(marks).values({**row, column: None}))


def test_a_mark_without_an_attempt_cannot_be_written(db: Connection) -> None:
    """Neither without a number, nor with one that no attempt has."""
    attempt = send(db, key_of(group="team"))
    for attempt_id in (None, attempt.id + 1):
        with pytest.raises(IntegrityError), db.begin_nested():
            db.execute(insert(marks).values({**row_of(attempt, Scope.CREDENTIAL), "attempt_id": attempt_id}))


def test_a_mark_cannot_be_handed_on_to_another_credential(db: Connection) -> None:
    """An update is held by the same keys."""
    refuse(db, ErrorClass.AUTH)
    send(db, key_of("other"))

    with pytest.raises(IntegrityError), db.begin_nested():
        db.execute(update(marks).values(credential="other"))
