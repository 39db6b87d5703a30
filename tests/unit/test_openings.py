"""When a closed chain opens again, and what never opens by itself."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.credential import Credential, CredentialKind, Readable
from jobs.errors import ErrorClass
from jobs.mark import Mark, Scope
from jobs.names import ProviderName
from jobs.providers.openings import Opening, Resolution, earliest
from jobs.providers.resolve import resolve_runtime_provider
from jobs.request import ApiMode
from jobs.target import Target

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FIRST = Target(ProviderName("zai"), "glm-5", "https://api.z.ai/v4", ApiMode.CHAT_COMPLETIONS)
SECOND = Target(ProviderName("groq"), "llama", "https://api.groq.com/v1", ApiMode.CHAT_COMPLETIONS)
NEEDS_MENDING = {"auth", "auth_dead", "permission", "model_not_found", "entitlement"}
OF_TIME = {
    *("auth_unavailable", "rate_limit", "rate_limit_upstream", "quota_window", "quota_billing"),
    *("overloaded", "server_error", "timeout", "connection", "invalid_response", "unknown"),
}


def mark(target: Target, label: str, until: datetime | None, error_class: str = "quota_window") -> Mark:
    """Return a mark on a credential."""
    return Mark(
        scope=Scope.CREDENTIAL,
        provider=target.provider,
        credential=label,
        quota_group=None,
        base_url=None,
        model=None,
        error_class=ErrorClass(error_class),
        code=None,
        until=until,
        until_source="retry-after header",
        fingerprint=None,
        step=1,
        made_at=NOW,
        attempt_id=1,
    )


def at(target: Target, *marks: Mark, labels: tuple[str, ...] = ("main",)) -> Resolution:
    """Resolve a target with these credentials and marks."""
    credentials = [
        Readable(Credential(target.provider, label, CredentialKind.KEY), None, (label,)) for label in labels
    ]
    return target, resolve_runtime_provider(target, credentials=credentials, marks=marks, now=NOW)


def test_the_earliest_of_all_targets_is_the_opening() -> None:
    """And it names everything that is closed."""
    opening = earliest(
        [at(FIRST, mark(FIRST, "main", NOW + 2 * HOUR)), at(SECOND, mark(SECOND, "main", NOW + HOUR))]
    )

    assert opening == Opening(NOW + HOUR, 1, SECOND, "groq/main, zai/main")
    assert str(opening) == "every target is closed; groq/llama opens first, at 2026-09-04 09:00:00 UTC"


def test_a_target_opens_with_the_first_of_its_credentials() -> None:
    """The others may stay closed for longer."""
    closed = (mark(FIRST, "main", NOW + 2 * HOUR), mark(FIRST, "spare", NOW + MINUTE))

    opening = earliest([at(FIRST, *closed, labels=("main", "spare"))])

    assert opening is not None
    assert opening.at == NOW + MINUTE


def test_a_credential_opens_when_the_last_of_its_marks_has_ended() -> None:
    """Two windows at once: the later one counts."""
    limit = replace(mark(FIRST, "main", NOW + MINUTE), error_class=ErrorClass.RATE_LIMIT)

    opening = earliest([at(FIRST, limit, mark(FIRST, "main", NOW + HOUR))])

    assert opening is not None
    assert opening.at == NOW + HOUR


def test_a_chain_with_an_open_target_is_not_closed() -> None:
    """Whatever stands against the others."""
    assert earliest([at(FIRST, mark(FIRST, "main", NOW + HOUR)), at(SECOND)]) is None


def test_the_dead_have_no_opening_but_wait_for_nobody() -> None:
    """With nothing timed there is none; beside something timed they do not count."""
    dead = at(FIRST, mark(FIRST, "main", None, "auth_dead"))

    assert earliest([dead]) is None
    opening = earliest([dead, at(SECOND, mark(SECOND, "main", NOW + HOUR))])
    assert opening is not None
    assert (opening.at, opening.index) == (NOW + HOUR, 1)


def test_a_target_without_a_readable_key_has_no_opening() -> None:
    """Nobody knows when somebody will put the key back."""
    keyless = resolve_runtime_provider(FIRST, credentials=[], marks=[], now=NOW)

    assert earliest([(FIRST, keyless)]) is None


@pytest.mark.parametrize("error_class", sorted(NEEDS_MENDING | OF_TIME))
def test_only_what_time_heals_opens_by_itself(error_class: str) -> None:
    """A wrong key is wrong in a minute too: its mark has a time, and no opening."""
    opening = earliest([at(FIRST, mark(FIRST, "main", NOW + HOUR, error_class))])

    assert (opening is not None) == (error_class in OF_TIME)
