"""JSON values as a schema's keywords need them: quoted in few characters, and compared without a search."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

LONGEST_QUOTED = 200
_CHARACTERS_PER_UNIT = 100

Spend = Callable[[int], None]


class _Text(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return _quoted(self)


class _List(list[Any]):
    __slots__ = ()

    def __repr__(self) -> str:
        return _quoted(self)


class _Dict(dict[str, Any]):
    __slots__ = ()

    def __repr__(self) -> str:
        return _quoted(self)


def in_few_words(value: Any) -> Any:
    """Return an equal JSON value whose `repr` is some 200 characters, and as little work, however long it is.

    Raises RecursionError for one that is nested too deep.
    """
    match value:
        case str():
            return _Text(value) if len(value) > LONGEST_QUOTED else value
        case list():
            return _List(in_few_words(each) for each in value)
        case Mapping():
            return _Dict((in_few_words(key), in_few_words(each)) for key, each in value.items())
        case _:
            return value


def _quoted(value: Any) -> str:
    parts: list[str] = []
    length = 0
    for part in _parts(value):
        parts.append(part)
        length += len(part)
        if length > LONGEST_QUOTED:
            return "".join(parts)[:LONGEST_QUOTED] + "…"
    return "".join(parts)


def _parts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield str.__repr__(value[: LONGEST_QUOTED + 1])
        case list():
            yield "["
            for number, each in enumerate(value):
                yield ", " if number else ""
                yield from _parts(each)
            yield "]"
        case dict():
            yield "{"
            for number, (key, each) in enumerate(value.items()):
                yield f"{', ' if number else ''}{str.__repr__(key[: LONGEST_QUOTED + 1])}: "
                yield from _parts(each)
            yield "}"
        case _:
            yield repr(value)


def frozen(value: Any, spend: Spend) -> Any:
    """Return a hashable value that is equal for equal JSON values: 1 is 1.0, and neither is true.

    `spend` is told how much is looked at. Numbers are hashed as text: those of equal hash are easy to find.
    """
    spend(1)
    match value:
        case str():
            spend(len(value) // _CHARACTERS_PER_UNIT)
            return str, value
        case bool() | None:
            return type(value), value
        case list():
            return list, tuple(frozen(each, spend) for each in value)
        case dict():
            return dict, frozenset((key, frozen(each, spend)) for key, each in value.items())
        case _:
            return float, str(int(value)) if value == int(value) else repr(value)
