"""Rules that turn what a provider says into an error class: data, an index over it, and the order of trust.

A rule matches when all of its keys match. Tried in this order: the user's rules as they stand in the file;
then rules that ask for a `field` of the error object; for a `code`; for a `type`; for a status (with or
without words, headers or a shape); then rules by headers or text alone. Within one step the rule with more
keys comes first, then the provider's own before `*`, then file order.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as value_field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.providers.answer import Origin
from jobs.providers.error_body import Layer, Shape

ANY: Final = "*"
_Key = TypeVar("_Key", str, int)
_BUILTIN: Final = Path(__file__).with_name("error_rules.yaml")


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _listed_as_text(value: Any) -> Any:
    return tuple(str(each) if isinstance(each, int) else each for each in _listed(value))


_Words = Annotated[tuple[str, ...], BeforeValidator(_listed_as_text)]
_Statuses = Annotated[tuple[Annotated[int, Field(ge=100, le=599)], ...], BeforeValidator(_listed)]
_Patterns = Mapping[str, str | Literal[True]]


class Rule(BaseModel):
    """One rule as a user writes it, under the provider that it is for.

    `text`, and the values of `header` and `field`, are regular expressions, searched without regard to
    case; `true` instead of one asks only that the header or field is there (and is not null). `field` names
    are paths inside the error object (`metadata.provider_name`). `code` and `type` are compared whole;
    where an answer has no code, its type is tried as one. `name` is what the rule is called in a verdict.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str | None = None
    status: _Statuses = ()
    code: _Words = ()
    type: _Words = ()
    text: str | None = None
    header: _Patterns = Field(default_factory=dict)
    field: _Patterns = Field(default_factory=dict)
    shape: Shape | None = None
    origin: Origin = Origin.MODEL
    error_class: ErrorClass = Field(alias="class")
    source: str = "the user's configuration"

    @field_validator("text")
    @classmethod
    def _compiles(cls, text: str | None) -> str | None:
        _pattern(text or "")
        return text

    @field_validator("header", "field")
    @classmethod
    def _all_compile(cls, patterns: _Patterns) -> _Patterns:
        for pattern in patterns.values():
            _pattern("" if pattern is True else pattern)
        return patterns

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not any((self.status, self.code, self.type, self.text, self.header, self.field, self.shape)):
            raise ValueError("a rule needs at least one of status, code, type, text, header, field, shape")
        return self


class BuiltinRule(Rule):
    """A rule of our own: for some providers or for any, and with the source of the fact."""

    provider: _Words = (ANY,)
    source: str = Field(min_length=1)


class _RuleFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    absent: Mapping[str, tuple[str, ...]]
    rules: tuple[BuiltinRule, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a rule decided, and by which layer of the body."""

    error_class: ErrorClass
    rule: str
    layer: Layer


@dataclass(frozen=True, slots=True)
class Evidence:
    """What rules look at: layers innermost first, each with the status that counts for it; headers; shape."""

    layers: tuple[Layer, ...]
    headers: Mapping[str, str]
    shape: Shape


@dataclass(frozen=True, slots=True)
class _Ready:
    """A rule with its patterns compiled."""

    rule: Rule
    prefix: str
    text: re.Pattern[str] | None
    header: tuple[tuple[str, re.Pattern[str]], ...]
    field: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]

    @classmethod
    def of(cls, rule: Rule, prefix: str) -> Self:
        header = ((name.lower(), _value_pattern(value)) for name, value in rule.header.items())
        field = ((tuple(path.split(".")), _value_pattern(value)) for path, value in rule.field.items())
        text = _pattern(rule.text) if rule.text is not None else None
        return cls(rule, prefix, text, tuple(header), tuple(field))

    @property
    def keys(self) -> int:
        rule = self.rule
        asked = (rule.status, rule.code, rule.type, rule.text, rule.shape)
        return sum(map(bool, asked)) + len(rule.header) + len(rule.field)

    def matches(self, layer: Layer, evidence: Evidence) -> bool:
        rule = self.rule
        return (
            (not rule.status or layer.status in rule.status)
            and (not rule.code or (layer.code or layer.type) in rule.code)
            and (not rule.type or layer.type in rule.type)
            and (rule.shape is None or rule.shape is evidence.shape)
            and all(pattern.search(evidence.headers.get(name) or "") for name, pattern in self.header)
            and all(pattern.search(_at(layer.data, path)) for path, pattern in self.field)
            and (self.text is None or self.text.search(layer.message) is not None)
        )

    def decision(self, layer: Layer) -> Decision:
        rule = self.rule
        slug = rule.name or (rule.code and (layer.code or layer.type)) or (rule.type and layer.type)
        slug = slug or (f"status-{layer.status}" if rule.status else "text")
        return Decision(rule.error_class, f"{self.prefix}{slug}", layer)


@dataclass(frozen=True)
class _Index:
    """The rules that concern one provider and one kind of endpoint, ready to be looked up."""

    user: tuple[_Ready, ...]
    by_field: tuple[_Ready, ...]
    by_code: Mapping[str, tuple[_Ready, ...]]
    by_type: Mapping[str, tuple[_Ready, ...]]
    by_status: Mapping[int, tuple[_Ready, ...]]
    others: tuple[_Ready, ...]
    absent: frozenset[str]

    def decide(self, evidence: Evidence) -> Decision | None:
        if self.user and (decision := _first(self.user, evidence)):
            return decision
        known = replace(evidence, layers=tuple(self._without_absent(layer) for layer in evidence.layers))
        for rules in self._candidates(known.layers):
            if rules and (decision := _first(rules, known)):
                return decision
        return None

    def _candidates(self, layers: tuple[Layer, ...]) -> Iterator[tuple[_Ready, ...]]:
        yield self.by_field
        for layer in layers:
            yield self.by_code.get(layer.code or layer.type or "", ())
        for layer in layers:
            yield self.by_type.get(layer.type or "", ())
        for layer in layers:
            yield self.by_status.get(layer.status or 0, ())
        yield self.others

    def _without_absent(self, layer: Layer) -> Layer:
        code, kind = self.spoken(layer.code), self.spoken(layer.type)
        unchanged = code == layer.code and kind == layer.type
        return layer if unchanged else replace(layer, code=code, type=kind)

    def spoken(self, word: str | None) -> str | None:
        """Return a code or type, or None where this provider means nothing by it."""
        repeats_status = word is not None and len(word) == len("400") and word.isdigit()
        return None if word in self.absent or repeats_status else word


@dataclass(frozen=True)
class Rules:
    """All rules, built-in and the users'; immutable, so one value serves every thread."""

    builtin: tuple[BuiltinRule, ...]
    absent: Mapping[str, tuple[str, ...]]
    user: Mapping[str, tuple[Rule, ...]] = value_field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def load_builtin(cls) -> Self:
        """Read `error_rules.yaml`; raises ValueError when it is not well formed."""
        # CSafeLoader is SafeLoader in C: it makes plain values only.
        data = yaml.load(_BUILTIN.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        file = _RuleFile.model_validate(data)
        return cls(builtin=file.rules, absent=MappingProxyType(dict(file.absent)))

    def with_user_rules(self, provider: ProviderName, rules: Sequence[Rule]) -> "Rules":
        """Return these rules with the user's own for `provider`, which are tried first, in their order."""
        return replace(self, user=MappingProxyType({**self.user, provider: tuple(rules)}))

    def decide(self, provider: str, origin: Origin, evidence: Evidence) -> Decision | None:
        """Return what the first matching rule says, or None when no rule speaks of this."""
        return self._index(provider, origin).decide(evidence)

    def spoken_code(self, provider: str, layer: Layer) -> str | None:
        """Return the code by which `provider` means something, its type where it has none."""
        index = self._index(provider, Origin.MODEL)
        return index.spoken(layer.code) or index.spoken(layer.type)

    def _index(self, provider: str, origin: Origin) -> _Index:
        known = self._indexes.get((provider, origin))
        return known if known is not None else self._indexes[(ANY, origin)]

    @cached_property
    def _indexes(self) -> Mapping[tuple[str, Origin], _Index]:
        named = {name for rule in self.builtin for name in rule.provider}
        providers = {ANY, *named, *self.absent, *self.user}
        return {(each, origin): self._indexed(each, origin) for each in providers for origin in Origin}

    def _indexed(self, provider: str, origin: Origin) -> _Index:
        own = [_Ready.of(r, f"{provider}/") for r in self._of(provider, origin)] if provider != ANY else []
        ready = [*own, *(_Ready.of(rule, f"{ANY}/") for rule in self._of(ANY, origin))]
        ready.sort(key=lambda each: -each.keys)
        user = (rule for rule in self.user.get(provider, ()) if rule.origin is origin)
        by_field = [each for each in ready if each.rule.field]
        by_code = [each for each in ready if each.rule.code and not each.rule.field]
        by_type = [each for each in ready if each.rule.type and not (each.rule.code or each.rule.field)]
        rest = [each for each in ready if not (each.rule.code or each.rule.type or each.rule.field)]
        return _Index(
            user=tuple(_Ready.of(rule, f"{provider}/user-") for rule in user),
            by_field=tuple(by_field),
            by_code=_grouped((code, each) for each in by_code for code in each.rule.code),
            by_type=_grouped((kind, each) for each in by_type for kind in each.rule.type),
            by_status=_grouped((status, each) for each in rest for status in each.rule.status),
            others=tuple(each for each in rest if not each.rule.status),
            absent=frozenset((*self.absent.get(ANY, ()), *self.absent.get(provider, ()))),
        )

    def _of(self, provider: str, origin: Origin) -> Iterator[Rule]:
        return (rule for rule in self.builtin if provider in rule.provider and rule.origin is origin)


def _first(rules: Iterable[_Ready], evidence: Evidence) -> Decision | None:
    for rule in rules:
        for layer in evidence.layers:
            if rule.matches(layer, evidence):
                return rule.decision(layer)
    return None


def _grouped(pairs: Iterable[tuple[_Key, _Ready]]) -> Mapping[_Key, tuple[_Ready, ...]]:
    groups: dict[_Key, list[_Ready]] = {}
    for key, each in pairs:
        groups.setdefault(key, []).append(each)
    return {key: tuple(rules) for key, rules in groups.items()}


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE | re.DOTALL)
    except (re.error, OverflowError, RecursionError) as wrong:
        raise ValueError(f"not a regular expression: {wrong}") from wrong


def _value_pattern(value: str | Literal[True]) -> re.Pattern[str]:
    return _pattern("." if value is True else value)


def _at(data: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """Return the value at `path` as text; empty when it is missing, null or empty."""
    value: Any = data
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return str(value) if value not in (None, "", [], {}) else ""
