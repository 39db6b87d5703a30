"""Which credential is chosen, and why the others are not."""

from datetime import UTC, datetime, timedelta

from jobs.credential import Credential, CredentialKind, Readable, Unreadable
from jobs.errors import ErrorClass
from jobs.mark import FOR_EVER, Mark, Scope
from jobs.names import ProviderName
from jobs.providers.pool import Closed, Habits, class_of, closure, first_open, words
from jobs.providers.resolve import PassedOver, Resolved, resolve_runtime_provider
from jobs.request import ApiMode
from jobs.target import Target

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZAI = ProviderName("zai")
TARGET = Target(ZAI, "glm-5", "https://api.z.ai/v4", ApiMode.CHAT_COMPLETIONS)


def key(label: str, *, group: str | None = None, fingerprint: str = "") -> Readable:
    """Return a key that could be read."""
    credential = Credential(ZAI, label, CredentialKind.KEY, group=group)
    return Readable(credential, None, (fingerprint or f"of {label}",))


def mark(
    label: str, *, until: datetime | None = NOW + HOUR, error_class: ErrorClass = ErrorClass.AUTH
) -> Mark:
    """Return a mark on a credential."""
    return Mark(
        scope=Scope.CREDENTIAL,
        provider="zai",
        credential=label,
        quota_group=None,
        base_url=None,
        model=None,
        error_class=error_class,
        code="1113",
        until=until,
        until_source="default",
        fingerprint=f"of {label}",
        step=1,
        made_at=NOW - HOUR,
        attempt_id=7,
    )


def choose(
    *keys: Readable, marks: tuple[Mark, ...] = (), refused: tuple[str, ...] = ()
) -> str | list[Closed]:
    """Return the label of the chosen key, or why each one is closed."""
    found = first_open(
        keys, marks, TARGET, habits=Habits(refused=frozenset(refused)), only_credential=False, now=NOW
    )
    return found.credential.label if isinstance(found, Readable) else found


def test_the_first_open_key_is_chosen() -> None:
    """`fill_first`: always the same one while it is open."""
    assert choose(key("a"), key("b")) == "a"


def test_a_marked_key_gives_way_to_the_next() -> None:
    """Until its time has passed."""
    assert choose(key("a"), key("b"), marks=(mark("a"),)) == "b"
    assert choose(key("a"), key("b"), marks=(mark("a", until=NOW),)) == "a"


def test_a_key_that_this_run_was_refused_with_is_not_chosen_again() -> None:
    """Although nothing stands against it."""
    assert choose(key("a"), key("b"), refused=("a",)) == "b"


def test_with_nothing_open_each_key_says_why() -> None:
    """With the mark behind it, or without one."""
    closed = choose(key("a"), key("b"), marks=(mark("a"),), refused=("b",))

    assert isinstance(closed, list)
    assert [(why.until, why.mark is None) for why in closed] == [(NOW + HOUR, False), (FOR_EVER, True)]


def test_of_several_marks_the_one_that_closes_longest_counts() -> None:
    """The others would open a door behind which it still is closed."""
    short, long = mark("a"), mark("a", until=None, error_class=ErrorClass.AUTH_DEAD)

    why = closure(key("a"), (short, long), TARGET, only_credential=False, now=NOW)

    assert why is not None
    assert (why.mark, why.until) == (long, FOR_EVER)


def test_a_closed_key_is_told_in_words() -> None:
    """Label, status, class, code, attempt and time."""
    until = words(Closed(key("a"), NOW + HOUR, mark("a")))
    dead = words(Closed(key("a"), FOR_EVER, mark("a", until=None, error_class=ErrorClass.AUTH_DEAD)))

    assert until == "a is exhausted: auth 1113, attempt 7, closed until 2026-09-04 09:00:00 UTC"
    assert dead.endswith("closed until a new secret, a login or a reset")
    assert words(Closed(key("a"), FOR_EVER, None)) == "a was refused in this run already"


def test_a_closed_target_has_the_class_of_its_first_mark() -> None:
    """What the run's `fallback_reason` will say."""
    closed = [Closed(key("a"), FOR_EVER, None), Closed(key("b"), NOW, mark("b"))]

    assert class_of(closed) is ErrorClass.AUTH
    assert class_of(closed[:1]) is ErrorClass.UNKNOWN


def resolve(*found: Readable | Unreadable, marks: tuple[Mark, ...] = ()) -> Resolved | PassedOver:
    """Resolve the usual target."""
    return resolve_runtime_provider(TARGET, credentials=found, marks=marks, now=NOW)


def test_a_target_resolves_to_the_key_that_may_be_used() -> None:
    """A failure to resolve is a value like any other: nothing is raised."""
    assert resolve(key("a")) == Resolved(key("a"))


def test_a_target_without_a_readable_key_is_a_configuration_error_that_says_why() -> None:
    """For each of its keys."""
    missing = Unreadable(Credential(ZAI, "a", CredentialKind.KEY), "the variable ZAI_API_KEY is not set")

    passed = resolve(missing)

    assert isinstance(passed, PassedOver)
    assert passed.error_class is ErrorClass.CONFIG_ERROR
    assert passed.message == "no key for zai can be read: a: the variable ZAI_API_KEY is not set"


def test_one_readable_key_is_enough() -> None:
    """The others are not asked for."""
    missing = Unreadable(Credential(ZAI, "a", CredentialKind.KEY), "gone")

    assert resolve(missing, key("b")) == Resolved(key("b"))


def test_a_closed_target_is_passed_over_with_its_class_code_and_reasons() -> None:
    """As the attempt's row will say."""
    passed = resolve(key("a"), key("b"), marks=(mark("a"), mark("b")))

    assert isinstance(passed, PassedOver)
    assert (passed.error_class, passed.code) == (ErrorClass.AUTH, "1113")
    assert passed.message.startswith("a is exhausted")
    assert "; b is exhausted" in passed.message


def test_an_unreadable_second_key_makes_the_first_one_no_only_one() -> None:
    """What is configured counts: a default time is not cut."""
    fresh = mark("a", until=NOW + HOUR)
    missing = Unreadable(Credential(ZAI, "b", CredentialKind.KEY), "gone")

    assert isinstance(resolve(key("a"), missing, marks=(fresh,)), PassedOver)
    assert isinstance(resolve(key("a"), marks=(fresh,)), Resolved)
