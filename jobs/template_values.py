"""What the values of a template are, and how large: data of known kinds, nested a little, never lazy."""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Set, Sized, ValuesView
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

LARGEST = 16_000_000
"""Characters of one value in a template, with all that it holds; a provider's answer is no longer."""

MOST_ITEMS = 500_000
"""Items of one list or mapping, with those of what it holds: to look at each takes a fraction of a second."""

DEEPEST = 50
"""Lists within lists."""

OF_A_PLACE = 8  # each item of a list takes it, however short
_OF_ANYTHING_ELSE = 100  # a time, a number with a point
_ESCAPED = 4  # a text inside a list is written with quotes, and some of its characters at greater length
_LONGEST_KEY = 60  # bits; there are as many longer numbers with the same hash as anyone likes


class TooLarge(SecurityError):
    """What a template wants to make does not fit; the text says why."""


def size(*values: Any) -> int:
    """Return about how many characters values have as text, and in memory; it stops counting past LARGEST.

    What is shared counts wherever it is. Raises TooLarge for what holds more than MOST_ITEMS, for what is
    nested deeper than DEEPEST, and for a namespace inside another value: it could be made larger afterwards,
    or hold itself.
    """
    counted, items, open_ = 0, 0, [iter(values)]
    while open_ and counted <= LARGEST:
        one = next(open_[-1], open_)
        if one is open_:
            open_.pop()
        elif isinstance(one, str | bytes | bytearray):
            counted += len(one) + OF_A_PLACE
        elif isinstance(one, int):
            counted += one.bit_length() // 3 + OF_A_PLACE
        elif (inside := _inside(one, nested=len(open_) > 1)) is not None:
            counted += OF_A_PLACE
            items += len(one) if isinstance(one, Sized) else 1
            require_few(items)
            open_.append(inside)
            if len(open_) > DEEPEST:
                raise TooLarge(f"values nested deeper than {DEEPEST}")
        else:
            counted += _OF_ANYTHING_ELSE
    return counted


def require_few(items: int) -> None:
    """Raise TooLarge for more items than a filter walks."""
    if items > MOST_ITEMS:
        raise TooLarge(f"a list of more than {MOST_ITEMS:,} items; split or take a shorter text")


def _inside(value: Any, *, nested: bool) -> Iterator[Any] | None:
    """Return what a container holds, one after the other; None for anything else."""
    if isinstance(value, list | tuple | set | frozenset):
        return iter(value)
    if isinstance(value, Mapping):
        return (part for pair in value.items() for part in pair)
    if isinstance(value, Namespace):
        if nested:
            raise TooLarge("a namespace inside another value")
        return iter((Namespace.__getattribute__(value, "_Namespace__attrs"),))
    return None


def text_size(*values: Any) -> int:
    """Return how many characters values have at most when they are written down; see `size`."""
    counted = 0
    for each in values:
        counted += len(each) if isinstance(each, str) else size(each) * _ESCAPED
        if counted > LARGEST:
            break
    return counted


def plain(value: Any) -> Any:
    """Return a value as what can be looked at twice and counted: views become lists, marked texts plain."""
    if isinstance(value, str) and type(value) is not str:
        return str(value)
    if isinstance(value, KeysView | ValuesView | ItemsView | Set) and not isinstance(value, frozenset):
        return list(value)
    return value


def mapping(pairs: Any = (), /, **named: Any) -> dict[Any, Any]:
    """Return a dict of pairs; raises TooLarge for a key of which many have the same hash."""
    made: dict[Any, Any] = {}
    for key, value in _pairs(pairs):
        if not isinstance(key, str | int | float | None) or _is_long(key):
            raise TooLarge("a key that is neither a text nor a number of usual length")
        made[key] = value
    return {**made, **named}


def _is_long(key: Any) -> bool:
    return isinstance(key, int) and key.bit_length() > _LONGEST_KEY


def _pairs(pairs: Any) -> Iterable[Any]:
    return pairs.items() if isinstance(pairs, Mapping) else pairs


class Attributes(Namespace):
    """Jinja's `namespace`, whose values are as bounded as all others, and hold no other namespace."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__()
        for name, value in mapping(*args, **named).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if size((value,)) > LARGEST:
            raise TooLarge(f"a value of more than {LARGEST:,} characters")
        super().__setitem__(name, value)
