"""The JSON Schema of a job's answers: checked when configuration is read, and answers held against it."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jobs.bounded_schema import MOST_KEYWORDS, UNBOUNDED, TooManyChecks, check_pattern, errors_of
from jobs.text import well_formed

LARGEST_SCHEMA = 120_000
DEEPEST_SCHEMA = 40
LONGEST_ANSWER = 1_000_000
MOST_FAULTS = 5
_LONGEST_PLACE, _LONGEST_WORDS, _LONGEST_VALUE = 120, 200, 80
_LONGEST_NUMBER = 310
_DIALECTS = {
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
    "http://json-schema.org/draft-07/schema": "Draft7Validator",
}
_DEFAULT_DIALECT = next(iter(_DIALECTS))
_THOUGHTS = re.compile(r"\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCED = re.compile(r"```[a-zA-Z]*[ \t]*\r?\n(?P<inside>.*?)\r?\n?```", re.DOTALL)
_TYPES = "array, boolean, integer, null, number, object, string"
_OPENAI_FORMS = ("json_schema", "json_object", "text")

Path = tuple[str | int, ...]


class SchemaFault(ValueError):
    """A schema that cannot be used: what is wrong at `path` within it, and what would be right."""

    def __init__(self, wrong: str, mend: str, path: Path = ()) -> None:
        super().__init__(f"{wrong}; {mend}")
        self.path = path


@dataclass(frozen=True, slots=True)
class Fitting:
    """An answer that is JSON and fits its schema; `text` is the JSON alone, without a fence around it."""

    text: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """An answer that is no JSON, or does not fit; each fault says where and what in some 300 characters."""

    faults: tuple[str, ...]

    def __str__(self) -> str:
        more = len(self.faults) - 1
        return self.faults[0] + (f" (and {more} more)" if more else "")


def check(schema: Mapping[str, Any]) -> None:
    """Raise SchemaFault for what is no JSON Schema, or none that is safe to hold an answer against.

    Nothing is fetched: a reference leads into the schema itself, or is a fault. Sizes are within what
    OpenAI takes (platform.openai.com/docs/guides/structured-outputs, "Supported schemas").
    """
    if schema.get("type") in _OPENAI_FORMS:
        raise SchemaFault("is not a JSON Schema", "write the schema itself, such as {type: object, …}")
    _check_size(schema)
    base, specification = _dialect(schema)
    _check_form(base, schema)
    parts = dict(_parts(schema, specification, ()))
    _check_parts(parts, specification)
    _check_references(schema, parts, specification)
    try:
        next(errors_of(base, schema, {}), None)
    except (RecursionError, TooManyChecks):
        raise SchemaFault("refers to itself without end", "let something stand between") from None


def _check_size(schema: Mapping[str, Any]) -> None:
    if _depth(schema, DEEPEST_SCHEMA) > DEEPEST_SCHEMA:
        raise SchemaFault(f"is nested more than {DEEPEST_SCHEMA} deep", "write it flatter, with $defs")
    try:
        size = len(json.dumps(schema, allow_nan=False, default=str))
    except ValueError:
        raise SchemaFault("holds a number that JSON does not have", "write an ordinary number") from None
    if size > LARGEST_SCHEMA:
        raise SchemaFault(f"is longer than {LARGEST_SCHEMA:,} characters of JSON", "make it simpler")


def _depth(value: Any, most: int) -> int:
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return 1 + max((_depth(each, most - 1) for each in inside), default=0) if most >= 0 else 1


def _dialect(schema: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the validator's class and the specification that the schema is written for."""
    import jsonschema  # noqa: PLC0415 - only jobs with a schema need it
    from referencing.jsonschema import specification_with  # noqa: PLC0415 - the same

    written = schema.get("$schema", _DEFAULT_DIALECT)
    name = _DIALECTS.get(written.rstrip("#")) if isinstance(written, str) else None
    if name is None:
        raise SchemaFault(
            "is no dialect that is known here", f"leave it out: {_DEFAULT_DIALECT}", ("$schema",)
        )
    return getattr(jsonschema, name), specification_with(written.rstrip("#"))


def _check_form(base: Any, schema: Mapping[str, Any]) -> None:
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - as above
    from referencing import Registry  # noqa: PLC0415 - as above

    try:
        found = best_match(base(base.META_SCHEMA, registry=Registry()).iter_errors(schema))
    except RecursionError:
        raise SchemaFault("is nested too deep", "write it flatter, with $defs") from None
    if found is not None:
        path = tuple(found.absolute_path)
        mend = f"one of {_TYPES}" if path[-1:] == ("type",) else "see json-schema.org"
        raise SchemaFault(_without_value(found), mend, path)


def _without_value(error: Any) -> str:
    """Say what is wrong with a schema, and never quote it: what stands in the wrong place may be a secret."""
    wanted = error.validator_value
    return f"is not JSON Schema: no {wanted}" if error.validator == "type" else "is not JSON Schema"


def _parts(
    schema: Any, specification: Any, path: Path
) -> Iterator[tuple[int, tuple[Path, Mapping[str, Any]]]]:
    """Yield every schema inside of a schema, itself first, by identity and with a path that leads near it."""
    if not isinstance(schema, Mapping):
        return
    yield id(schema), (path, schema)
    places = {id(each): (*path, *at) for at, each in _inside(schema)}
    for part in specification.subresources_of(schema):
        yield from _parts(part, specification, places.get(id(part), path))


def _inside(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for key, value in schema.items():
        yield (key,), value
        items = (
            value.items()
            if isinstance(value, Mapping)
            else enumerate(value)
            if isinstance(value, list)
            else ()
        )
        yield from (((key, name), each) for name, each in items)


def _check_parts(parts: Mapping[int, tuple[Path, Mapping[str, Any]]], specification: Any) -> None:
    for path, part in parts.values():
        if len(part) > MOST_KEYWORDS:
            raise SchemaFault(f"has more than {MOST_KEYWORDS} keywords", "remove what says nothing", path)
        for keyword in UNBOUNDED & part.keys():
            raise SchemaFault(
                "is not carried out: its cost has no bound", "say it otherwise", (*path, keyword)
            )
        if path and ("$schema" in part or specification.id_of(part) is not None):
            raise SchemaFault("begins a schema of its own", "keep `$id` and `$schema` at the top", path)
        try:
            check_pattern(part.get("pattern", ""))
        except ValueError as exc:
            mend = "write a regular expression without look-around or backreferences"
            raise SchemaFault(f"cannot be searched for: {exc}", mend, (*path, "pattern")) from None


def _check_references(
    schema: Mapping[str, Any], parts: Mapping[int, tuple[Path, Mapping[str, Any]]], specification: Any
) -> None:
    from referencing import Registry  # noqa: PLC0415 - as above
    from referencing.exceptions import Unresolvable  # noqa: PLC0415 - as above

    resolver = Registry().resolver_with_root(specification.create_resource(schema))
    for path, part in parts.values():
        reference = part.get("$ref", "#")
        if not reference.startswith("#"):
            wrong = "refers to another document, and nothing is fetched"
            raise SchemaFault(wrong, "put it under $defs and write #/$defs/NAME", (*path, "$ref"))
        try:
            found = resolver.lookup(reference).contents
        except Unresolvable:
            found = None
        if not isinstance(found, bool) and id(found) not in parts:
            raise SchemaFault("refers to no schema of this one", "such as #/$defs/NAME", (*path, "$ref"))


def judge(answer: str, schema: Mapping[str, Any]) -> Fitting | Unfit:
    """Hold an answer against a checked schema. CPU-bound: call it off the loop.

    It is JSON, or JSON inside of one Markdown fence; nothing else may stand around it, but for the thoughts
    that some local models write out first.
    """
    thoughts = _THOUGHTS.match(answer)
    text = answer[thoughts.end() if thoughts else 0 :].strip()
    if fenced := _FENCED.fullmatch(text):
        text = fenced["inside"].strip()
    if len(text) > LONGEST_ANSWER:
        return Unfit((f"$: longer than the {LONGEST_ANSWER:,} characters that are held against a schema",))
    try:
        document = json.loads(text, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError) as exc:
        return Unfit((f"$: no JSON: {_cut(str(exc).partition(';')[0], _LONGEST_WORDS)}",))
    faults = _faults(document, schema)
    return Unfit(faults) if faults else Fitting(text)


def _faults(document: Any, schema: Mapping[str, Any]) -> tuple[str, ...]:
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - as above

    base, _ = _dialect(schema)
    try:
        found = list(islice(errors_of(base, schema, document), MOST_FAULTS))
    except TooManyChecks:
        return ("$: takes more checks than there may be; ask for less, or for a simpler schema",)
    except RecursionError:
        return ("$: nested too deep to be held against the schema",)
    except ArithmeticError:
        return ("$: holds a number that cannot be reckoned with",)
    return tuple(_told(best_match([each]) or each) for each in found)


def _told(error: Any) -> str:
    """Say where and what, with no more of the answer than tells it from another."""
    value = repr(error.instance)
    words = error.message.removeprefix(value)
    shown = _cut(value, _LONGEST_VALUE) if words != error.message else ""
    return well_formed(f"{_cut(error.json_path, _LONGEST_PLACE)}: {_cut(shown + words, _LONGEST_WORDS)}")


def name_of(schema: Mapping[str, Any]) -> str:
    """Return a schema's name in requests: its title, as far as OpenAI's names allow, or `answer`."""
    title = schema.get("title")
    words = re.sub(r"[^a-zA-Z0-9_-]+", "_", title).strip("_") if isinstance(title, str) else ""
    return words[:64] or "answer"


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def _whole(text: str) -> int:
    """Read a whole number of no more digits than a finite one has: those are reckoned with one by one."""
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("a number is too large")
    return int(text)


def _cut(text: str, length: int) -> str:
    words = " ".join(text.split())
    return words if len(words) <= length else f"{words[: length - 1]}…"
