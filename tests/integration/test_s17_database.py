"""S17: the database itself refuses a mark that breaks attribution, whoever writes it, with plain SQL."""

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from support.ledger import NOW

from jobs.mark import Scope

EARNED, OF_ITS_SIBLING, OF_ANOTHER = 1, 2, 3  # attempts: each of these credentials has made one
ATTEMPTS = {
    EARNED: ("zai", "key", "team", "https://api.z.ai/v1", "glm-5"),
    OF_ITS_SIBLING: ("zai", "spare", "org", "https://eu.z.ai/v1", "glm-6"),
    OF_ANOTHER: ("openai-codex", "plan", "plan-group", "https://chatgpt.example/codex", "gpt-5.5"),
}
NAMES = ("credential", "quota_group", "base_url", "model")
MOMENT = NOW.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
FOREIGN = [  # siblings have one provider
    *((name, OF_ITS_SIBLING) for name in (*NAMES, "attempt_id")),
    *((name, OF_ANOTHER) for name in ("provider", *NAMES, "attempt_id")),
]


@pytest.fixture
def ledger(db: Connection) -> Connection:
    """Return a connection to a migrated database with three attempts in it."""
    for attempt_id, (provider, label, group, base_url, model) in ATTEMPTS.items():
        named = {"id": attempt_id, "provider": provider, "label": label, "group": group, "now": MOMENT}
        do(
            db,
            "INSERT INTO credentials (provider, label, kind, source, quota_group, created_at)"
            " VALUES (:provider, :label, 'key', 'env:KEY', :group, :now)",
            **named,
        )
        do(
            db,
            "INSERT INTO attempts (id, try, ordinal, purpose, target_index, provider, model, base_url,"
            " credential, quota_group, outcome, started_at)"
            " VALUES (:id, 1, 1, 'main', 0, :provider, :model, :base_url, :label, :group, 'sent', :now)",
            **named,
            base_url=base_url,
            model=model,
        )
    return db


def do(db: Connection, statement: str, **values: object) -> None:
    """Run plain SQL; when it is refused, the transaction goes on without it."""
    with db.begin_nested():
        db.execute(text(statement), values)


def facts(attempt_id: int) -> dict[str, object]:
    """Return what an attempt used, by the names of a mark's columns."""
    named = dict(zip(("provider", *NAMES), ATTEMPTS[attempt_id], strict=True))
    return {**named, "attempt_id": attempt_id}


def mark_of(scope: Scope) -> dict[str, object]:
    """Return the mark that the first attempt earns in a scope."""
    says = (scope.on_credential, scope.on_group, scope.on_endpoint, scope.on_model)
    left_out = {name: None for name, said in zip(NAMES, says, strict=True) if not said}
    kind = {"scope": scope.value, "error_class": "unknown", "until_source": "default", "step": 1}
    return {**facts(EARNED), **left_out, **kind, "made_at": MOMENT}


def write(db: Connection, row: dict[str, object]) -> None:
    """Insert a row into `marks`."""
    columns, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    do(db, f"INSERT INTO marks ({columns}) VALUES ({places})", **row)


@pytest.mark.parametrize("scope", Scope)
def test_s17_the_mark_that_was_earned_is_taken(ledger: Connection, scope: Scope) -> None:
    """So that the refusals below are for what is foreign, and for nothing else."""
    write(ledger, mark_of(scope))

    assert ledger.execute(text("SELECT attempt_id FROM marks")).scalars().all() == [EARNED]


@pytest.mark.parametrize(("name", "other"), FOREIGN)
@pytest.mark.parametrize("scope", Scope)
def test_s17_a_mark_with_one_thing_of_somebody_else_is_refused(
    ledger: Connection, scope: Scope, name: str, other: int
) -> None:
    """A sibling's of the same provider, or another provider's: all of it is there, and none of it fits."""
    row, foreign = mark_of(scope), facts(other)[name]

    with pytest.raises(IntegrityError):
        write(ledger, {**row, name: foreign})


@pytest.mark.parametrize("other", [OF_ITS_SIBLING, OF_ANOTHER])
@pytest.mark.parametrize("scope", Scope)
def test_s17_a_mark_is_neither_handed_on_nor_given_another_cause(
    ledger: Connection, scope: Scope, other: int
) -> None:
    """An update is held as an insert is."""
    write(ledger, mark_of(scope))
    row = {name: value for name, value in facts(other).items() if mark_of(scope)[name] is not None}
    changed = {name: value for name, value in row.items() if value != mark_of(scope)[name]}
    assert {"attempt_id"} < changed.keys()

    for name, value in changed.items():
        with pytest.raises(IntegrityError):
            do(ledger, f"UPDATE marks SET {name} = :value", value=value)


@pytest.mark.parametrize(
    ("column", "value"),
    [("provider", "openai-codex"), ("credential", "plan"), ("provider", "nobody"), ("credential", "nobody")],
)
def test_s17_an_attempt_has_a_credential_of_its_own_provider(
    ledger: Connection, column: str, value: str
) -> None:
    """There is no attempt of one provider with the credential of another, or with one that is not there."""
    with pytest.raises(IntegrityError):
        do(ledger, f"UPDATE attempts SET {column} = :value WHERE id = :id", value=value, id=EARNED)


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("column", ["provider", "credential", "quota_group", "base_url", "model"])
def test_s17_an_attempt_that_earned_a_mark_keeps_what_the_mark_names(
    ledger: Connection, scope: Scope, column: str
) -> None:
    """What a mark stands on is not changed under it, nor taken away."""
    mark = mark_of(scope)
    write(ledger, mark)

    if mark[column] is not None:
        with pytest.raises(IntegrityError):
            do(ledger, f"UPDATE attempts SET {column} = 'another' WHERE id = :id", id=EARNED)
    with pytest.raises(IntegrityError):
        do(ledger, "DELETE FROM attempts WHERE id = :id", id=EARNED)
