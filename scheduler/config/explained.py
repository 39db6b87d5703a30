"""One key explained, for `promptd config explain`: meaning, type, default, and its values in effect."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from jobs.errors import UsageError
from scheduler.config.json_schema import DURATION_PATTERN, json_schema
from scheduler.config.meanings import MEANINGS, SECTIONS

_ANY_JOB = "jobs"
_DEFAULTS = "defaults"
_NAMED = (_ANY_JOB, "providers", "delivery")
"""Sections of things with names, of each of which the values in effect are known."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What there is to say of one key, without regard to a configuration. `key` is dotted."""

    key: str
    meaning: str
    type: str
    default: str


@dataclass(frozen=True, slots=True)
class InEffect:
    """A value of a key, where in the configuration it holds, and where it comes from."""

    at: str
    value: Any
    origin: str


def matching(asked: str) -> list[Explained]:
    """Return the keys that somebody means: a dotted path, or the last word of some; raises UsageError.

    `jobs.NAME.KEY` and `defaults.KEY` mean the key of any job.
    """
    wanted = _without_names(asked)
    keys = [wanted] if wanted in MEANINGS and "." in wanted else _ending_with(wanted)
    if not keys:
        near = get_close_matches(wanted, [*MEANINGS, *(k.rpartition(".")[2] for k in MEANINGS)], n=2)
        advice = f"did you mean {' or '.join(near)}?" if near else "see `promptd config schema`"
        raise UsageError(f"{asked!r} is not a key that can be explained; {advice}")
    schema = json_schema()
    return [_explained(key, schema) for key in keys]


def _ending_with(wanted: str) -> list[str]:
    """Return the keys that end so; a key at the top and one of jobs may share their name."""
    return [key for key in MEANINGS if f".{key}".endswith(f".{wanted}")]


def named(asked: str) -> str | None:
    """Return the job, provider or delivery target that a path names: that of `jobs.NAME.KEY`."""
    parts = asked.strip().split(".")
    is_named = len(parts) > 2 and parts[0] in _NAMED and ".".join(parts) not in MEANINGS
    return parts[1] if is_named else None


def in_effect(key: str, shown: Mapping[str, Any], *, only: str | None = None) -> Iterator[InEffect]:
    """Yield the values of a key in what `effective` returns: one of the file, or one for each with a name."""
    section, _, rest = key.partition(".")
    if section in _NAMED and rest:
        yield from _of_each(section, rest.split("."), shown.get(section, {}), only)
        return
    if section == "auxiliary" and rest:
        return
    found = _below(shown, key.split("."))
    if found is not None:
        yield InEffect(key, found["value"], found["from"])


def _of_each(
    section: str, path: Sequence[str], each: Mapping[str, Any], only: str | None
) -> Iterator[InEffect]:
    for name, keys in each.items():
        leaf = keys.get(path[0])
        if leaf is None or only not in (None, name) or (len(path) > 1 and not _has_keys(section, leaf)):
            continue
        value = leaf["value"]
        for part in path[1:]:
            value = value.get(part) if isinstance(value, Mapping) else None
        yield InEffect(".".join((section, name, *path)), value, leaf["from"])


def _has_keys(section: str, leaf: Mapping[str, Any]) -> bool:
    """Say whether a value is a mapping of keys, or absent, and neither a list nor a mapping of free names."""
    return section == _ANY_JOB and not isinstance(leaf["value"], list)


def _below(shown: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any] | None:
    here: Any = shown
    for part in path:
        here = here.get(part) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) and here.keys() == {"value", "from"} else None


def _without_names(asked: str) -> str:
    parts = asked.strip().split(".")
    if parts[0] == _DEFAULTS and len(parts) > 1:
        parts[0] = _ANY_JOB
    if named(asked) is not None or (parts[0] == "auxiliary" and len(parts) > 2):
        del parts[1]
    return ".".join(parts)


def _explained(key: str, schema: Mapping[str, Any]) -> Explained:
    section, _, name = key.rpartition(".")
    written = _properties(section, schema)[name]
    meaning = MEANINGS[key]
    default = meaning.default if meaning.default is not None else _words(written.get("default"))
    return Explained(key, meaning.text, _type(written, schema), default)


def _properties(section: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    model = SECTIONS[section].__name__
    found: Mapping[str, Any] = schema["properties"] if not section else schema["$defs"][model]["properties"]
    return found


def _type(written: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Say in words what may be written."""
    match written:
        case {"$ref": str(place)}:
            said = _type(schema["$defs"][place.rpartition("/")[2]], schema)
        case {"enum": list(values)}:
            said = f"one of {', '.join(map(_words, values))}"
        case {"anyOf": list(kinds)}:
            said = " or ".join(dict.fromkeys(_type(kind, schema) for kind in kinds))
        case {"type": "array", "items": kind}:
            said = f"list, each {_type(kind, schema)}"
        case {"type": "object", "properties": dict(keys)}:
            said = f"mapping with {', '.join(keys)}"
        case _:
            said = f"{_kind(written)}{_bounds(written)}"
    return said


def _kind(written: Mapping[str, Any]) -> str:
    if written.get("pattern") == DURATION_PATTERN:
        return "duration such as 90s, 30m, 1h30m"
    return _KINDS[written.get("type", "object")]


_KINDS = MappingProxyType(
    {
        "object": "mapping",
        "boolean": "true or false",
        "integer": "whole number",
        "number": "number",
        "null": "null",
        "string": "text",
    }
)


def _bounds(written: Mapping[str, Any]) -> str:
    least, most = written.get("minimum"), written.get("maximum")
    if least is not None and most is not None:
        return f" from {_words(least)} to {_words(most)}"
    return f", {_words(least)} or more" if least is not None else ""


def _words(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None | "" | [] | {}:
            return "none"
        case list():
            return ", ".join(map(_words, value))
        case dict():
            return ", ".join(f"{key}: {_words(each)}" for key, each in value.items())
        case float() if value.is_integer():
            return f"{value:.0f}"
        case _:
            return str(value)
