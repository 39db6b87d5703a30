"""The names of files that results go to: templates of a few fields, which cannot lead anywhere else."""

import os.path
from collections.abc import Mapping
from datetime import UTC, datetime
from string import Formatter

from jobs.delivery.message import Message, MessageKind

FIELDS = ("job", "run_id", "state", "scheduled_for")
_DATE = "scheduled_for"
_EXAMPLE = {"job": "job", "run_id": "1", "state": "succeeded"}
_EXAMPLES_DAY = datetime(2026, 1, 31, tzinfo=UTC)
_NO_FILES = ("/dev/", "/proc/", "/sys/")
"""Where Linux shows devices and itself (hier(7)): what is written there is no file that stays."""


def checked(template: str) -> str:
    """Return a template that can be filled; raises ValueError with `what is wrong; what would be right`."""
    for _, name, spec, conversion in _pieces(template):
        if name is None:
            continue
        if name not in FIELDS or conversion:
            known = ", ".join(f"{{{each}}}" for each in FIELDS)
            raise ValueError(f"has a field that nobody fills; there are {known}")
        if spec and (name != _DATE or "{" in spec or "%" not in spec):
            raise ValueError("says how to write a field; only {scheduled_for:%Y-%m-%d} has a form")
    return _sound(template)


def fields_of(template: str) -> frozenset[str]:
    """Return the fields that a checked template has."""
    return frozenset(name for _, name, _, _ in _pieces(template) if name is not None)


def example(template: str) -> str:
    """Return a name such as a template gives; raises ValueError as `checked` does."""
    return _sound(_filled(template, _EXAMPLE, _EXAMPLES_DAY))


def file_name(template: str, message: Message) -> str:
    """Return the name that a template gives to a message's file; raises ValueError as `checked` does.

    Notices of alerts stand under `_alerts` in place of a job, with the number of their alert, so that none
    takes the place of a run's file; a test under `_test`. Where a template names no job they stand in a
    directory of that name beside its files.
    """
    values = _values(message)
    name = _filled(template, values, _moment(message))
    if message.kind is not MessageKind.RUN and "job" not in fields_of(template):
        above, slash, last = name.rpartition("/")
        name = f"{above}{slash}{values['job']}/{last}"
    return _sound(name)


def _filled(template: str, values: Mapping[str, str], moment: datetime) -> str:
    parts = []
    for text, name, spec, _ in _pieces(checked(template)):
        parts.append(text)
        if name == _DATE:
            parts.append(f"{moment:{spec or '%Y-%m-%dT%H:%M:%S%z'}}")
        elif name is not None:
            parts.append(values[name])
    return "".join(parts)


def _sound(name: str) -> str:
    if not name.strip("/ ") or name.endswith(("/", "/.", "/..")) or "\0" in name:
        raise ValueError("names no file; write such as out/{job}/{run_id}.md")
    if not name.startswith("/") and ".." in name.split("/"):
        raise ValueError("leads out of its directory by `..`; write an absolute path where that is meant")
    if name.startswith("/") and os.path.normpath(f"/{name.lstrip('/')}").startswith(_NO_FILES):
        raise ValueError(f"lies in {' or '.join(_NO_FILES)}, where no file stays; name one on a disk")
    return name


def _pieces(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(template))
    except ValueError:
        raise ValueError("has braces that do not match; write {{ and }} for braces that stay") from None


def _values(message: Message) -> Mapping[str, str]:
    facts = message.facts
    match message.kind:
        case MessageKind.RUN:
            job, number, state = facts["job"], facts["run_id"], facts["state"]
        case MessageKind.ALERT:
            job, number, state = "_alerts", facts["alert_id"], facts["notice"]
        case MessageKind.TEST:
            job, number, state = "_test", "test", "test"
    return {"job": _part(job), "run_id": _part(number), "state": _part(state)}


def _part(value: object) -> str:
    """Return a value as a part of a name: it makes no directories of its own."""
    return str(value).replace("/", "_").replace("\0", "_")


def _moment(message: Message) -> datetime:
    due = message.facts.get(_DATE)
    return datetime.fromisoformat(due) if isinstance(due, str) else message.at
