"""What is delivered: the words of a run's end, an alert's notice or a test, and the facts behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from jobs.alert import AlertKind, Notice
from jobs.run import RunState
from jobs.text import well_formed, without_nul

LONGEST_SUBJECT = 200
_FIRST_WORDS = 80
_MARKUP = "#*_>`-=~ \t"


class MessageKind(StrEnum):
    """What a message is about."""

    RUN = "run"
    ALERT = "alert"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Message:
    """One message for one target. `key` is the same at every try, so that a receiver can tell it again.

    `what` says in two words what has happened, such as `run.succeeded`, and `at` when it has. `subject` is
    one line; `body` is the whole text: each kind of target has a limit, and says in the text where it was
    cut. `facts` are values that JSON has, by the names that receivers see. Make it by one of the functions
    below: they take out what no text can hold, and line breaks of a subject.
    """

    key: str
    kind: MessageKind
    what: str
    at: datetime
    subject: str
    body: str
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def whole_text(self) -> str:
        """The command that prints the whole text, where there is one; else empty."""
        run_id = self.facts.get("run_id")
        return f"promptd run output {run_id}" if self.kind is MessageKind.RUN else ""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as a message tells it; most names are those of its row.

    `scheduled_for` is in the time zone of its job: names of files show it. `asked` are its attempts, in
    order, each as `provider/model: error class`, or `provider/model: answered`.
    """

    id: int
    job: str
    scheduled_for: datetime
    trigger: str
    state: str
    finished_at: datetime
    reason: str | None = None
    error_class: str | None = None
    error_message: str | None = None
    title: str | None = None
    output: str | None = None
    truncated: bool = False
    served_provider: str | None = None
    served_model: str | None = None
    fallback: bool = False
    fallback_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """One message of an alert; `subject` and `body` are the words that its row holds, since `told_at`."""

    alert_id: int
    notice: Notice
    kind: AlertKind
    subject: str
    body: str
    opened_at: datetime
    told_at: datetime | None = None
    job: str | None = None
    provider: str | None = None
    credential: str | None = None
    run_id: int | None = None


def message_of_run(run: RunRow, key: str) -> Message:
    """Return the message of a run that has ended: its answer, or why there is none and where to look."""
    if run.state == RunState.SUCCEEDED:
        subject, body = run.title or _first_words(run), run.output or ""
    else:
        subject, body = _failure_in_short(run), _failure(run)
    return Message(
        key, MessageKind.RUN, f"run.{run.state}", run.finished_at, one_line(subject), _text(body), _facts(run)
    )


def message_of_alert(row: NoticeRow, key: str) -> Message:
    """Return one message of an alert."""
    facts = {
        "alert_id": row.alert_id,
        "alert": str(row.kind),
        "opened_at": row.opened_at.isoformat(),
        "notice": str(row.notice),
        "job": row.job,
        "run_id": row.run_id,
        "provider": row.provider,
        "credential": row.credential,
    }
    what, at = f"alert.{row.notice}", row.told_at or row.opened_at
    subject, body = one_line(row.subject), _text(row.body)
    return Message(key, MessageKind.ALERT, what, at, subject, body, MappingProxyType(facts))


def message_of_test(target: str, key: str, *, now: datetime) -> Message:
    """Return the message with which an operator tries a target."""
    body = f"This is a test of the delivery target {target}. No run is behind it, and nothing needs doing."
    facts = MappingProxyType({"target": target})
    return Message(key, MessageKind.TEST, "test", now, f"promptd: test of {target}", body, facts)


def one_line(text: str) -> str:
    """Return a text as one printable line of at most 200 characters: a subject, a header, a variable."""
    shown = "".join(each if each.isprintable() else " " for each in well_formed(text[: 4 * LONGEST_SUBJECT]))
    return _shortened(" ".join(shown.split()), LONGEST_SUBJECT)


def _text(text: str) -> str:
    return without_nul(well_formed(text))


def _first_words(run: RunRow) -> str:
    plain = (run.output or "")[:10_000].replace("**", "").replace("`", "")
    lines = (line.strip(_MARKUP) for line in plain.splitlines())
    first = _shortened(next(filter(None, lines), ""), _FIRST_WORDS)
    return f"{run.job}: {first}" if first else run.job


def _shortened(line: str, most: int) -> str:
    """Return the beginning of a line, cut between words where it is long."""
    if len(line) <= most:
        return line
    kept = line[:most].rpartition(" ")[0]
    return f"{kept if len(kept) > most // 2 else line[: most - 1]}…"


def _failure_in_short(run: RunRow) -> str:
    match run.state:
        case RunState.TIMED_OUT:
            return f"{run.job} timed out"
        case RunState.ABANDONED:
            return f"{run.job} was abandoned: the process that ran it is gone"
        case _:
            return f"{run.job} {run.state}: {run.reason or 'for no reason that was written down'}"


def _failure(run: RunRow) -> str:
    """Return what somebody has to know who is told of a failure, and where the rest stands."""
    error = run.error_message or "Nothing was written down about it."
    known = [
        ("State", f"{run.state} ({run.reason})" if run.reason else str(run.state)),
        ("Due", run.scheduled_for.isoformat()),
        ("Ended", run.finished_at.isoformat()),
        ("Error class", run.error_class),
    ]
    lines = [f"{name}: {value}" for name, value in known if value]
    asked = ["Asked, in this order:", *(f"  {each}" for each in run.asked)] if run.asked else []
    return "\n".join([error, "", *lines, *asked, "", f"Look closer: promptd run show {run.id}"])


def _facts(run: RunRow) -> Mapping[str, Any]:
    has_error = run.error_class is not None or run.error_message is not None
    error = {"class": run.error_class, "message": _text(run.error_message or "")}
    served = {"provider": run.served_provider, "model": run.served_model}
    return MappingProxyType(
        {
            "job": run.job,
            "run_id": run.id,
            "scheduled_for": run.scheduled_for.isoformat(),
            "trigger": run.trigger,
            "state": str(run.state),
            "reason": run.reason,
            "error": error if has_error else None,
            "title": one_line(run.title) if run.title else None,
            "served": served if run.served_provider else None,
            "fallback": run.fallback,
            "fallback_reason": run.fallback_reason,
            "truncated": run.truncated,
            "usage": {"input_tokens": run.input_tokens, "output_tokens": run.output_tokens},
            "finished_at": run.finished_at.isoformat(),
        }
    )
