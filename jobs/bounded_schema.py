"""JSON Schema validation that ends: a budget of checks, and no keyword that a long answer makes slow.

`jsonschema` searches patterns with a backtracking engine, compares unique items pair by pair and collects
every error of every branch. What an answer can blow up is done here in linear time, and in little memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from pydantic_core import SchemaError, SchemaValidator, core_schema

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MOST_CHECKS = 200_000
UNBOUNDED = frozenset(
    {"patternProperties", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef"}
)
"""Keywords whose cost cannot be bounded here; a schema with one is refused."""

_Keyword = Callable[[Any, Any, Any, Any], "Iterator[ValidationError] | None"]


class TooManyChecks(Exception):
    """The budget is spent: schema and answer together ask for more than `MOST_CHECKS` checks."""


def check_pattern(pattern: str) -> None:
    """Raise ValueError for a regular expression that cannot be searched in linear time.

    The engine is Rust's regex crate, which has neither look-around nor backreferences
    (docs.rs/regex, "Untrusted input").
    """
    try:
        _matcher(pattern)
    except SchemaError as exc:
        lines = [line.strip() for line in str(exc).splitlines()]
        why = next(
            (line.partition("error: ")[2] for line in lines if line.startswith("error: ")), "too large"
        )
        raise ValueError(why) from None


def validator(base: Any, schema: Mapping[str, Any]) -> Any:
    """Return a validator of `jsonschema`'s class `base` for one answer: it raises TooManyChecks.

    It looks nothing up outside of the schema.
    """
    from jsonschema import validators  # noqa: PLC0415 - only jobs with a schema need it
    from referencing import Registry  # noqa: PLC0415 - the same

    left = [MOST_CHECKS]
    own: dict[str, _Keyword] = {
        "pattern": _pattern, "uniqueItems": _unique_items, "anyOf": _any_of, "oneOf": _one_of
    }  # fmt: skip
    keywords = {
        name: partial(_counted, left, keyword) for name, keyword in {**base.VALIDATORS, **own}.items()
    }
    extend: Any = validators.extend
    bounded = extend(base, keywords)
    # A nested `$schema` is refused, and the root's would bring back the class without bounds.
    return bounded({k: v for k, v in schema.items() if k != "$schema"}, registry=Registry())


def _counted(
    left: list[int], keyword: _Keyword, validator: Any, value: Any, instance: Any, schema: Any
) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise TooManyChecks
    return keyword(validator, value, instance, schema)


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _error(message: str, context: Sequence[Any] = ()) -> "ValidationError":
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415 - as above

    return ValidationError(message, context=context)


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator["ValidationError"]:
    if isinstance(instance, str) and not _matcher(pattern).isinstance_python(instance):
        yield _error(f"{instance!r} does not match {pattern!r}")


def _unique_items(_validator: Any, wanted: bool, instance: Any, _schema: Any) -> Iterator["ValidationError"]:
    if wanted and isinstance(instance, list) and len({_frozen(each) for each in instance}) < len(instance):
        yield _error(f"{instance!r} has non-unique elements")


def _frozen(value: Any) -> Any:
    """Return a hashable value that is equal for equal JSON values: 1 is 1.0, and neither is true."""
    match value:
        case bool() | str() | None:
            return type(value), value
        case list():
            return list, tuple(_frozen(each) for each in value)
        case dict():
            return dict, frozenset((key, _frozen(each)) for key, each in value.items())
        case _:
            return float, value


def _any_of(
    validator: Any, branches: Sequence[Any], instance: Any, _schema: Any
) -> Iterator["ValidationError"]:
    errors = []
    for index, branch in enumerate(branches):
        error = next(validator.descend(instance, branch, schema_path=index), None)
        if error is None:
            return
        errors.append(error)
    yield _error(f"{instance!r} is not valid under any of the given schemas", errors)


def _one_of(
    validator: Any, branches: Sequence[Any], instance: Any, _schema: Any
) -> Iterator["ValidationError"]:
    firsts = [next(validator.descend(instance, each, schema_path=n), None) for n, each in enumerate(branches)]
    fitting = firsts.count(None)
    if fitting == 0:
        yield _error(f"{instance!r} is not valid under any of the given schemas", [e for e in firsts if e])
    elif fitting > 1:
        yield _error(f"{instance!r} is valid under {fitting} of the given schemas instead of one")
