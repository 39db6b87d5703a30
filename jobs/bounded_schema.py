"""JSON Schema validation that ends: a budget of work, and no keyword that a long answer makes slow.

`jsonschema` searches patterns with a backtracking engine, compares items and listed values one by one, quotes
the whole answer in every error and collects every error of every branch. What an answer can blow up is done
here in linear time and in little memory, and all work is paid for by the size of what is looked at.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

from pydantic_core import SchemaError, SchemaValidator, core_schema

from jobs.schema_values import Spend, frozen, in_few_words

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MOST_WORK = 4_000_000
"""What one answer may cost, in units of about a microsecond."""

MOST_KEYWORDS = 100
"""How many keys one schema may have, those of its properties not counted: each visit reads them all."""

UNBOUNDED = frozenset(
    {"patternProperties", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$recursiveRef"}
)
"""Keywords whose cost cannot be bounded here; a schema with one is refused."""

_A_CHECK, _A_VISIT = 10, 10
_STEPS_PER_UNIT = 150
_EVERY_ITEM = frozenset({"items", "additionalItems", "contains", "additionalProperties", "propertyNames"})
_EVERY_BRANCH = frozenset({"allOf", "anyOf", "oneOf"})
_EITHER = frozenset({"properties", "prefixItems", "dependentSchemas", "dependencies"})
_PATTERN_PARTS = re.compile(
    r"\\[pP]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(?P<least>[0-9]+)(?:,(?P<most>[0-9]*))?\}|.", re.DOTALL
)

_Keyword = Callable[[Any, Any, Any, Any], "Iterator[ValidationError] | None"]


class TooManyChecks(Exception):
    """The budget is spent: schema and answer together ask for more than `MOST_WORK`."""


@dataclass(slots=True)
class _Budget:
    """What is left for one answer, and what was found out about its schema on the way, by identity."""

    left: int = MOST_WORK
    listed: dict[int, frozenset[Any]] = field(default_factory=dict)
    referred: dict[str, Any] = field(default_factory=dict)

    def spend(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            raise TooManyChecks


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


def errors_of(base: Any, schema: Mapping[str, Any], document: Any) -> "Iterator[ValidationError]":
    """Yield what `jsonschema`'s class `base` finds wrong with one answer; raises TooManyChecks.

    It looks nothing up outside of the schema. The errors quote their instances in few words.
    """
    return validator(base, schema).iter_errors(in_few_words(document))  # type: ignore[no-any-return]


def validator(base: Any, schema: Mapping[str, Any]) -> Any:
    """Return a bounded validator of `jsonschema`'s class `base` for one answer."""
    from jsonschema import validators  # noqa: PLC0415 - only jobs with a schema need it
    from referencing import Registry  # noqa: PLC0415 - the same

    budget = _Budget()
    own: dict[str, _Keyword] = {
        "$ref": partial(_ref, budget),
        "pattern": partial(_pattern, budget.spend),
        "uniqueItems": partial(_unique_items, budget.spend),
        "enum": partial(_enum, budget),
        "const": partial(_const, budget.spend),
        "anyOf": _any_of,
        "oneOf": _one_of,
    }
    keywords = {
        name: partial(_paid, budget, name, keyword) for name, keyword in {**base.VALIDATORS, **own}.items()
    }
    extend: Any = validators.extend
    bounded = extend(base, keywords)
    # A nested `$schema` is refused, and the root's would bring back the class without bounds.
    plain = {key: value for key, value in schema.items() if key != "$schema"}
    return bounded(in_few_words(plain), registry=Registry())


def _paid(
    budget: _Budget, name: str, keyword: _Keyword, validator: Any, value: Any, instance: Any, schema: Any
) -> Any:
    budget.spend(_A_CHECK + _cost(name, value, instance))
    return keyword(validator, value, instance, schema)


def _cost(name: str, value: Any, instance: Any) -> int:
    """Say how much a keyword looks at, at most: names of its own, parts of the answer, visits to schemas."""
    names = len(value) if isinstance(value, list | dict) and name != "enum" else 0
    parts = len(instance) if isinstance(instance, list | dict) else 0
    if name in _EVERY_ITEM:
        return names + _A_VISIT * parts
    if name in _EVERY_BRANCH:
        return _A_VISIT * names
    if name in _EITHER:
        return names + _A_VISIT * min(names, parts) + _listed_names(value)
    return names + (_listed_names(value) if name == "dependentRequired" else 0)


def _listed_names(value: Any) -> int:
    return (
        sum(len(each) for each in value.values() if isinstance(each, list)) if isinstance(value, dict) else 0
    )


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


@lru_cache(maxsize=256)
def _states(pattern: str) -> int:
    """Return about how many states a pattern has: each may be followed for every character of a text."""
    sums, last = [0], 0
    for part in _PATTERN_PARTS.finditer(pattern):
        match part[0]:
            case "(":
                sums.append(0)
                last = 0
            case ")" if len(sums) > 1:
                last = sums.pop()
                sums[-1] += last
            case _ if part["least"] is not None:
                times = max(int(part["most"] or part["least"]), int(part["least"]), 1)
                sums[-1] += last * (times - 1)
                last *= times
            case _:
                last = 1
                sums[-1] += 1
    return sum(sums)


def _error(message: str, context: Sequence[Any] = ()) -> "ValidationError":
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415 - as above

    return ValidationError(message, context=context)


def _ref(
    budget: _Budget, validator: Any, reference: str, instance: Any, _schema: Any
) -> Iterator["ValidationError"]:
    """Descend into what a reference leads to; only the root has an `$id`, so it leads there from anywhere."""
    if reference not in budget.referred:
        budget.referred[reference] = validator._resolver.lookup(reference).contents
    yield from validator.descend(instance, budget.referred[reference])


def _pattern(
    spend: Spend, _validator: Any, pattern: str, instance: Any, _schema: Any
) -> Iterator["ValidationError"]:
    if not isinstance(instance, str):
        return
    spend(len(instance) * _states(pattern) // _STEPS_PER_UNIT)
    if not _matcher(pattern).isinstance_python(instance):
        yield _error(f"{instance!r} does not match {pattern!r}")


def _unique_items(
    spend: Spend, _validator: Any, wanted: bool, instance: Any, _schema: Any
) -> Iterator["ValidationError"]:
    if not (wanted and isinstance(instance, list)):
        return
    if len({frozen(each, spend) for each in instance}) < len(instance):
        yield _error(f"{instance!r} has non-unique elements")


def _enum(
    budget: _Budget, _validator: Any, values: Sequence[Any], instance: Any, _schema: Any
) -> Iterator["ValidationError"]:
    listed = budget.listed.get(id(values))
    if listed is None:
        listed = budget.listed[id(values)] = frozenset(frozen(each, budget.spend) for each in values)
    if frozen(instance, budget.spend) not in listed:
        yield _error(f"{instance!r} is not one of {values!r}")


def _const(
    spend: Spend, _validator: Any, value: Any, instance: Any, _schema: Any
) -> Iterator["ValidationError"]:
    if frozen(instance, spend) != frozen(value, spend):
        yield _error(f"{value!r} was expected")


def _any_of(
    validator: Any, branches: Sequence[Any], instance: Any, _schema: Any
) -> Iterator["ValidationError"]:
    errors = []
    for index, branch in enumerate(branches):
        error = next(validator.descend(instance, branch, schema_path=index), None)
        if error is None:
            return
        errors.append(error)
    yield _error(f"{instance!r} is not valid under any of the given schemas", _telling(errors))


def _one_of(
    validator: Any, branches: Sequence[Any], instance: Any, _schema: Any
) -> Iterator["ValidationError"]:
    firsts = [next(validator.descend(instance, each, schema_path=n), None) for n, each in enumerate(branches)]
    fitting = firsts.count(None)
    if fitting == 0:
        told = _telling([error for error in firsts if error is not None])
        yield _error(f"{instance!r} is not valid under any of the given schemas", told)
    elif fitting > 1:
        yield _error(f"{instance!r} is valid under {fitting} of the given schemas instead of one")


def _telling(errors: Sequence[Any]) -> Sequence[Any]:
    """Return the one error of several branches that says most, if there is one; the others are let go."""
    from jsonschema.exceptions import relevance  # noqa: PLC0415 - as above

    best = nsmallest(2, errors, key=relevance)
    tied = len(best) > 1 and relevance(best[0]) == relevance(best[1])
    return () if tied else best[:1]
