"""What the world itself saw: every call of a chain and every request, noted where it leaves the process."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from jobs.attempt import Attempt
from jobs.providers.call import Call


@dataclass(slots=True, eq=False)
class Asked:
    """One request. `attempt` is None for a refresh, of which only address and token are seen.

    `expected` is the class that the answer has to get, None where it is not known; `said` is the text of a
    good answer; `short_hint` that the answer asked for a wait of a few milliseconds.
    """

    number: int
    heard: "Heard"
    provider: str
    label: str
    base_url: str
    secret: str | None
    attempt: Attempt | None = None
    answered: bool = False
    said: str | None = None
    expected: str | None = None
    status: int | None = None
    short_hint: bool = False
    refresh_token: str | None = None
    surely_not_taken: bool = False


@dataclass(slots=True, eq=False)
class Heard:
    """One call of a chain: what it was given, and the requests that were made for it, in order."""

    number: int
    call: Call
    requests: list[Asked] = field(default_factory=list)
    ended: bool = False


@dataclass(slots=True)
class Record:
    """Everything that was heard. Nothing in it comes from the database."""

    calls: list[Heard] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)
    by_attempt: dict[int, Asked] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    answered: int = 0
    owners: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def drills(self) -> set[int | None]:
        """The runs in which nobody may be marked."""
        return {heard.call.run_id for heard in self.calls if heard.call.drill is not None}

    @contextmanager
    def calling(self, call: Call) -> Iterator[Heard]:
        """Note a call; what is asked in its context while the body runs is asked for it."""
        heard = Heard(len(self.calls), call)
        self.calls.append(heard)
        token = _NOW.set(heard)
        try:
            yield heard
        finally:
            heard.ended = True
            _NOW.reset(token)

    def asked(
        self,
        *,
        provider: str,
        label: str,
        base_url: str,
        secret: str | None,
        attempt: Attempt | None = None,
        refresh_token: str | None = None,
    ) -> Asked:
        """Note a request as it leaves."""
        heard = _NOW.get()
        asked = Asked(
            len(self.requests), heard, provider, label, base_url, secret, attempt, refresh_token=refresh_token
        )
        self.requests.append(asked)
        heard.requests.append(asked)
        if attempt is not None:
            if attempt.id in self.by_attempt:
                self.wrong.append(f"attempt {attempt.id} has left twice")
            self.by_attempt[attempt.id] = asked
        return asked

    def complain(self, what: str) -> None:
        """Note something that must not be."""
        self.wrong.append(what)


_NOW: ContextVar[Heard] = ContextVar("the call that is being worked on")
