"""Which run of a held job is the probe: one in five minutes for each set of closed credentials."""

from datetime import UTC, datetime, timedelta

from jobs.store.holds import PROBE_EVERY, HeldJob
from scheduler.holds import probes_of

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
LONG_AGO = NOW - PROBE_EVERY


def held(name: str, *, closed: str = "zai/main", probed_at: datetime = LONG_AGO) -> HeldJob:
    """Return a job that is held for an hour."""
    opens_at = NOW + timedelta(hours=1)
    return HeldJob(name, opens_at, opens_at, 1, closed, "every target is closed", probed_at)


def probes(*jobs: HeldJob, due: tuple[str, ...]) -> set[str]:
    """Return who probes."""
    return set(probes_of({each.name: each for each in jobs}, due, now=NOW))


def test_one_due_job_probes_for_all_that_the_same_credentials_hold() -> None:
    """The first that is due."""
    assert probes(held("a"), held("b"), held("c"), due=("b", "c")) == {"b"}


def test_each_set_of_credentials_has_its_own_probe() -> None:
    """What is closed for one says nothing of another."""
    assert probes(held("a"), held("b", closed="groq/main"), due=("a", "b")) == {"a", "b"}


def test_nobody_probes_sooner_than_five_minutes_after_the_last_probe() -> None:
    """Whoever made it."""
    lately = held("a", probed_at=LONG_AGO + timedelta(seconds=1))

    assert probes(lately, held("b"), due=("a", "b")) == set()


def test_a_job_that_is_not_due_does_not_probe() -> None:
    """A probe is a due run."""
    assert probes(held("a"), due=()) == set()
