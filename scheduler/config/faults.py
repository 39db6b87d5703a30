"""What pydantic finds wrong, told as faults: place, dotted key, what is wrong in plain words, and the mend.

Nothing here quotes a value: what stands in the wrong place may be a secret.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from scheduler.config.gather import Faults, dotted
from scheduler.config.schema import FREE
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath

_MAY_BE_EMPTY = re.compile(r"((jobs)?\[\d+\]\.)?schedule")
_OF_A_KEY = "[key]"  # what pydantic puts behind the path of a key
_UNKNOWN = "is not a key that is known here"
_URL = ("is not a base URL", "an absolute http:// or https:// URL without login, query or fragment")
_REFERENCE = (
    "is not a reference to a secret",
    "env:NAME, file:PATH or systemd:NAME, never the secret itself",
)
_NOT_TEXT = ("is not text", "put the value in quotes")
_NOT_WHOLE = ("is not a whole number", "write digits, such as 10")
_NOT_NUMBER = ("is not a number", "write a number, such as 0.7")
_NOT_BOOLEAN = ("is neither true nor false", "write true or false")
NOT_MAPPING = ("is not a mapping", "write `key: value` lines below it, indented")
NOT_LIST = ("is not a list", "write [a, b], or lines that begin with `- `")
NO_VALUE = ("has no value", "write one, or remove the key")

WORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "missing": ("is missing", "add `{key}: …`"),
        "string_type": _NOT_TEXT,
        "string_unicode": ("holds characters that are no text", "write plain UTF-8 text"),
        "int_type": _NOT_WHOLE,
        "int_parsing": _NOT_WHOLE,
        "int_from_float": _NOT_WHOLE,
        "int_parsing_size": _NOT_WHOLE,
        "float_type": _NOT_NUMBER,
        "float_parsing": _NOT_NUMBER,
        "finite_number": _NOT_NUMBER,
        "bool_type": _NOT_BOOLEAN,
        "bool_parsing": _NOT_BOOLEAN,
        "dict_type": NOT_MAPPING,
        "mapping_type": NOT_MAPPING,
        "model_type": NOT_MAPPING,
        "model_attributes_type": NOT_MAPPING,
        "list_type": NOT_LIST,
        "tuple_type": NOT_LIST,
        "set_type": NOT_LIST,
        "frozen_set_type": NOT_LIST,
        "enum": ("is none of the values there are", "one of {expected}"),
        "literal_error": ("is none of the values there are", "one of {expected}"),
        "greater_than_equal": ("is too small", "{ge} or more"),
        "less_than_equal": ("is too large", "{le} or less"),
        "string_pattern_mismatch": ("has a form that is not allowed", "it must match {pattern}"),
        "too_short": ("is empty", "list at least {min_length}"),
        "too_long": ("lists too many", "list at most {max_length}"),
    }
)
"""What each type of pydantic's errors means, and what would be right."""

BY_KEY: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "base_url": _URL,
        "token_url": _URL,
        "device_authorization_url": _URL,
        "authorization_url": _URL,
        "key": _REFERENCE,
        "secret_key": _REFERENCE,
    }
)
"""What a value that a check refused means, where the check's own text might quote the value."""

_NAMED_FREELY = FREE | {"headers"}
"""Keys below which a name of `BY_KEY` means something else."""

_MENDS: Mapping[str, str] = MappingProxyType(
    {
        "schedule": "write `schedule: …`, or `schedule: null` for a job that is run by hand or by `after`",
        "prompt": "add `prompt: …`, or `prompt_file: FILE`",
    }
)


_FILES: Mapping[str, str] = MappingProxyType({"prompt_file": "prompt"})
"""Keys that stand in for a required one."""


def _empty_keys(data: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every key or item without a value, but for those that may be null."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for part, value in pairs:
        if value is None:
            yield (*path, part)
        elif isinstance(value, dict | list) and part not in FREE:
            yield from _empty_keys(value, (*path, part))


def note_empty_keys(faults: Faults, document: Document) -> None:
    """Note every key without a value; only a job's schedule may be null."""
    for path in _empty_keys(document.data):
        if not _MAY_BE_EMPTY.fullmatch(dotted(path)):
            faults.add(document, path, *NO_VALUE, key=True)


def report(
    faults: Faults, document: Document, at: KeyPath, model: type[BaseModel], exc: ValidationError
) -> None:
    """Note every error of one validation, of the value that stands at the path `at`."""
    errors = exc.errors(include_url=False)
    unknown = [_Unknown.of(model, error["loc"]) for error in errors if error["type"] == "extra_forbidden"]
    meant = {(u.path[:-1], each) for u in unknown for each in u.stands_for}
    for error in errors:
        path = _existing(document, (*at, *error["loc"]), missing=error["type"] == "missing")
        if error["type"] == "missing" and (error["loc"][:-1], str(error["loc"][-1])) in meant:
            continue
        if error["type"] in ("value_error", "too_short") and faults.under(document, path):
            continue  # a part of the value is known to be wrong: what is said of the whole follows from that
        wrong, mend = _words(model, error)
        faults.add(document, path, wrong, mend, key=_is_about_a_key(error))


def _is_about_a_key(error: ErrorDetails) -> bool:
    return error["type"] == "extra_forbidden" or error["input"] is None or error["loc"][-1:] == (_OF_A_KEY,)


def _existing(document: Document, path: KeyPath, *, missing: bool) -> KeyPath:
    """Return the part of the path that is in the file: pydantic adds names of its own to it."""
    wanted, last = (path[:-1], path[-1:]) if missing else (path, ())
    return (*document.held(wanted), *last)


def _words(model: type[BaseModel], error: ErrorDetails) -> tuple[str, str]:
    kind, key = error["type"], str(next((p for p in reversed(error["loc"]) if isinstance(p, str)), ""))
    if kind == "extra_forbidden":
        return _Unknown.of(model, error["loc"]).words
    if error["input"] is None and kind != "missing":
        return NO_VALUE
    if kind == "value_error":
        return (None if _NAMED_FREELY.intersection(error["loc"]) else BY_KEY.get(key)) or _own_words(error)
    wrong, mend = WORDS.get(kind, ("is not what is wanted here", "see `promptd config schema`"))
    context = {"key": key, **error.get("ctx", {})}
    return wrong, _MENDS.get(key, mend.format(**context)) if kind == "missing" else mend.format(**context)


def _own_words(error: ErrorDetails) -> tuple[str, str]:
    text = str(error.get("ctx", {}).get("error", ""))
    wrong, semicolon, mend = text.partition("; ")
    return (wrong, mend) if semicolon else ("is not right", text)


@dataclass(frozen=True, slots=True)
class _Unknown:
    """A key that its mapping does not know, and the known keys that it may have been meant for."""

    path: KeyPath
    near: tuple[str, ...]

    @classmethod
    def of(cls, model: type[BaseModel], loc: KeyPath) -> "_Unknown":
        owner = _model_at(model, loc[:-1])
        return cls(loc, () if owner is None else _near(owner, str(loc[-1])))

    @property
    def stands_for(self) -> tuple[str, ...]:
        """The keys whose absence this one explains."""
        return (*self.near, *(_FILES[key] for key in self.near if key in _FILES))

    @property
    def words(self) -> tuple[str, str]:
        if not self.near:
            return (_UNKNOWN, "remove it; see `promptd config schema`")
        return (_UNKNOWN, f"did you mean {' or '.join(self.near)}?")


@lru_cache(maxsize=1024)
def _near(owner: type[BaseModel], key: str) -> tuple[str, ...]:
    names = [field.alias or name for name, field in owner.model_fields.items()]
    wanted = key.strip().lower().replace("-", "_")
    surely = get_close_matches(wanted, names, n=2, cutoff=0.85)
    return tuple(surely or get_close_matches(wanted, names, n=2, cutoff=0.6))


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """Return the model of the mapping at a path below a model; None where no model is."""
    here: Any = model
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = {f.alias or name: f.annotation for name, f in here.model_fields.items()}
            here = _plain(fields.get(str(part)))
        else:
            here = _plain(
                next(iter(get_args(here)[-1:] if get_origin(here) is dict else get_args(here)), None)
            )
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _plain(annotation: Any) -> Any:
    """Return an annotation without its metadata and without `| None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return _plain(next(arg for arg in get_args(annotation) if arg is not type(None)))
    return annotation
