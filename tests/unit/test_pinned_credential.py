"""A call that is pinned to one credential: nobody takes its place, and the others still count."""

from datetime import timedelta

import pytest
from support.ledger import NOW, key_of, target_of

from jobs.credential import Readable, Unreadable
from jobs.errors import ErrorClass
from jobs.mark import DEFAULT_SOURCE, Mark, Scope
from jobs.providers.pool import Habits
from jobs.providers.resolve import PassedOver, Resolved, resolve_runtime_provider

FIRST, SECOND = (Readable(key_of(label), None, (label,)) for label in ("first", "second"))
LOST = Unreadable(key_of("lost"), "the variable LOST is not set")


def _refused(label: str) -> Mark:
    """Return a mark that an only credential would have left behind by now, and one of several has not."""
    made_at = NOW - timedelta(minutes=2)
    until = made_at + timedelta(minutes=5)
    return Mark(
        Scope.CREDENTIAL, "zai", label, None, None, None, ErrorClass.AUTH, None, until, DEFAULT_SOURCE, label,
        1, made_at, 7,
    )  # fmt: skip


def _resolve(only: str, *marks: Mark, through_closed: bool = False) -> Resolved | PassedOver:
    return resolve_runtime_provider(
        target_of(),
        credentials=[FIRST, SECOND, LOST],
        marks=marks,
        habits=Habits(only=only, through_closed=through_closed),
        now=NOW,
    )


@pytest.mark.parametrize("each", [FIRST, SECOND])
def test_the_credential_that_is_meant_is_chosen_whatever_its_place(each: Readable) -> None:
    assert _resolve(each.credential.label) == Resolved(each)


def test_a_closed_one_is_not_replaced_and_is_not_taken_for_an_only_credential() -> None:
    """A mark of two minutes ago would be over for an only credential."""
    passed = _resolve("first", _refused("first"))
    assert isinstance(passed, PassedOver)
    assert (passed.error_class, len(passed.closed)) == (ErrorClass.AUTH, 1)
    assert _resolve("first", _refused("first"), through_closed=True) == Resolved(FIRST)


@pytest.mark.parametrize("label", ["lost", "nobody"])
def test_one_that_cannot_be_read_or_is_not_there_is_a_configuration_error(label: str) -> None:
    passed = _resolve(label)
    assert isinstance(passed, PassedOver)
    assert passed.error_class is ErrorClass.CONFIG_ERROR
