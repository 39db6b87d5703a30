"""How long texts get that a template makes: told before they are made, from what goes into them."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from string import Formatter
from types import MappingProxyType
from typing import Any

LARGEST = 16_000_000
"""Characters of one value in a template, with all that it holds; a provider's answer is no longer."""

_OF_A_PLACE = 8  # each item of a list takes it, however short
_OF_ANYTHING_ELSE = 100  # a time, a number with a point
_NUMBERS = re.compile(r"\d+")
_PERCENT = re.compile(r"%(\([^()]*\))?([#0\- +]*)(\*|\d+)?(?:\.(\*|\d+))?[hlL]?(.)", re.DOTALL)

Args = tuple[Any, ...]
Named = Mapping[str, Any]


class TooLarge(ValueError):
    """What a template wants to make does not fit; the text says why."""


def size(value: Any) -> int:
    """Return about how many characters a value has as text, and in memory; it stops counting past LARGEST."""
    counted, open_ = 0, [iter((value,))]
    while open_ and counted <= LARGEST:
        one = next(open_[-1], open_)
        if one is open_:
            open_.pop()
        elif isinstance(one, str | bytes | bytearray):
            counted += len(one) + _OF_A_PLACE
        elif isinstance(one, int):
            counted += one.bit_length() // 3 + _OF_A_PLACE
        elif (inside := _inside(one)) is not None:
            counted += _OF_A_PLACE
            open_.append(inside)
        else:
            counted += _OF_ANYTHING_ELSE
    return counted


def _inside(value: Any) -> Iterator[Any] | None:
    """Return what a container holds, one after the other; None for anything else."""
    if isinstance(value, Mapping):
        return (part for pair in value.items() for part in pair)
    return iter(value) if isinstance(value, list | tuple | set | frozenset) else None


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else size(value)


def _width(text: Any, width: Any = 80, *_: Any, **named: Any) -> int:
    return max(_length(text), _whole(named.get("width", width)))


def _whole(value: Any) -> int:
    """Return a number as it counts here; anything else will be refused by whatever gets it."""
    return abs(value) if isinstance(value, int) else 0


def _indented(text: Any, width: Any = 4, *_: Any, **named: Any) -> int:
    width = named.get("width", width)
    each = len(width) if isinstance(width, str) else _whole(width)
    return _length(text) + each * (str(text).count("\n") + 1 if isinstance(text, str) else size(text))


def _tabs(text: Any, tabsize: Any = 8) -> int:
    return _length(text) + int(text.count("\t" if isinstance(text, str) else b"\t")) * _whole(tabsize)


def _replaced(text: Any, old: Any = "", new: Any = "", count: Any = None, **named: Any) -> int:
    text, old, new = str(text), str(named.get("old", old)), str(named.get("new", new))
    times = text.count(old) if old else len(text) + 1
    limit = named.get("count", count)
    times = min(times, limit) if isinstance(limit, int) and limit >= 0 else times
    return len(text) + times * len(new)


def _joined(between: Any, items: Any = ()) -> int:
    return size(items) + _length(between) * (len(items) if isinstance(items, str | list | tuple) else 0)


def _filter_joined(items: Any, between: Any = "", *_: Any, **named: Any) -> int:
    return _joined(str(named.get("d", between)), items)


def _wrapped(text: Any, width: Any = 79, breaks: Any = True, wrapstring: Any = None, **named: Any) -> int:
    between = named.get("wrapstring", wrapstring) or "\n"
    lines = str(text).count("\n") + len(str(text)) // max(1, _whole(named.get("width", width))) + 1
    return _length(text) + 2 * lines * _length(between)


def _batched(items: Any, number: Any = 1, fill_with: Any = None, **named: Any) -> int:
    times = _whole(named.get("linecount", named.get("slices", number)))
    return size(items) + times * size(named.get("fill_with", fill_with))


def _summed(items: Any, attribute: Any = None, start: Any = 0, **named: Any) -> int:
    """Lists are not summed: each step copies all that came before."""
    return 0 if isinstance(named.get("start", start), int | float) else LARGEST + 1


def _split(text: Any, sep: Any = None, *_: Any, **named: Any) -> int:
    sep = named.get("sep", sep)
    pieces = text.count(sep) if sep else sum(map(str(text).count, " \t\n"))
    return _length(text) + _OF_A_PLACE * int(pieces)


def _sought_backwards(text: Any, sought: Any = "", *_: Any, **__: Any) -> int:
    """Python seeks forwards in linear time, and backwards with the product of both lengths."""
    return _length(text) * _length(sought) // 100


def _as_json(value: Any, indent: Any = None) -> int:
    deep = _whole(indent) * 100 if indent else 1
    return size(value) * min(deep, LARGEST)


def _round(_number: Any, precision: Any = 0, *_: Any, **named: Any) -> int:
    return 10 ** min(_whole(named.get("precision", precision)), 9) if precision or named else 0


def _bytes_of(_number: Any, length: Any = 1, *_: Any, **named: Any) -> int:
    return _whole(named.get("length", length))


def percent_formatted(text: str, args: Any) -> int:
    """Return how long `text % args` gets at most; raises TooLarge for a width that is an argument."""
    length, fields = len(text), 0
    for field in _PERCENT.finditer(text):
        if "*" in (field[3], field[4]):
            raise TooLarge("a width that is taken from an argument")
        length += sum(
            int(number[:9]) if len(number) < 9 else LARGEST for number in field.group(3, 4) if number
        )
        fields += 1
    return length + (fields if isinstance(args, Mapping) else 1) * size(args)


def _filter_formatted(text: Any, *args: Any, **named: Any) -> int:
    return percent_formatted(str(text), named or args)


def brace_formatted(text: str, args: Iterable[Any]) -> int:
    """Return how long `text.format(…)` gets at most; raises TooLarge for a field inside a field."""
    length, fields = len(text), 0
    for _, name, form, _ in islice(Formatter().parse(text), LARGEST):
        if form and "{" in form:
            raise TooLarge("a field inside a field")
        length += sum(
            int(number[:9]) if len(number) < 9 else LARGEST for number in _NUMBERS.findall(form or "")
        )
        fields += name is not None
    return length + fields * max((size(each) for each in args), default=0)


Growth = Callable[..., int]

OF_METHODS: Mapping[str, Growth] = MappingProxyType(
    {
        "ljust": _width,
        "rjust": _width,
        "center": _width,
        "zfill": _width,
        "expandtabs": _tabs,
        "replace": _replaced,
        "join": _joined,
        "to_bytes": _bytes_of,
        "split": _split,
        "splitlines": _split,
        "rsplit": _sought_backwards,
        "rfind": _sought_backwards,
        "rindex": _sought_backwards,
        "rpartition": _sought_backwards,
    }
)
"""Of methods of texts and numbers: called with the text, and with what the method is called with."""

OF_FILTERS: Mapping[str, Growth] = MappingProxyType(
    {
        "center": _width,
        "indent": _indented,
        "replace": _replaced,
        "join": _filter_joined,
        "wordwrap": _wrapped,
        "batch": _batched,
        "slice": _batched,
        "tojson": _as_json,
        "round": _round,
        "format": _filter_formatted,
        "sum": _summed,
    }
)
