"""What a template may ask for, and how much it makes: told before it is made, from what goes into it.

What is in neither table is refused. Python's own operations run to their end, and nothing else runs
meanwhile: so what takes more than linear time counts as the length that would take as long.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sized
from datetime import date, time, timedelta
from itertools import islice
from string import Formatter
from types import MappingProxyType
from typing import Any

from jinja2.runtime import LoopContext
from jinja2.utils import Cycler

from jobs.template_values import LARGEST, OF_A_PLACE, TooLarge, require_few, size, text_size

_NUMBERS = re.compile(r"\d+")
_PERCENT = re.compile(r"%(\([^()]*\))?([#0\- +]*)(\*|\d+)?(?:\.(\*|\d+))?[hlL]?(.)", re.DOTALL)
_LONGEST_FORM = 1_000  # characters of how a time, or one value, is to be written
_LARGEST_FOR_SLOW = 100_000  # for what takes a microsecond for each character, or the square of a few
_COMPARED_AS_ONE = 10  # comparisons of two characters that take as long as a character takes to be made
_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # str.splitlines
_BLANKS = _LINE_ENDS + " \t\x1f\xa0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

Growth = Callable[..., int]


def _constant(*_: Any, **__: Any) -> int:
    return 0


def _once(value: Any, *_: Any, **__: Any) -> int:
    return text_size(value)


def _times(factor: int) -> Growth:
    """Return the growth of what makes up to so many characters out of one, or takes so much longer."""
    return lambda value, *_, **__: text_size(value) * factor


def _each(items: Any, *_: Any, **__: Any) -> int:
    """Return the size of a list with one place for each item; the items themselves are there already."""
    require_few(len(items) if isinstance(items, Sized) else 0)
    return len(items) * OF_A_PLACE if isinstance(items, str) else 0


def _ordered(items: Any, *_: Any, **__: Any) -> int:
    """Return the size of what is compared, several times, inside of Python."""
    return max(_each(items), 4 * size(items))


def _width(text: Any, width: Any = 80, *_: Any, **named: Any) -> int:
    return max(text_size(text), _whole(named.get("width", width)))


def _whole(value: Any) -> int:
    """Return a number as it counts here; anything else will be refused by whatever gets it."""
    return abs(value) if isinstance(value, int) else 0


def _lines(text: Any) -> int:
    return sum(map(text.count, _LINE_ENDS)) + 1 if isinstance(text, str) else text_size(text)


def _indented(text: Any, width: Any = 4, *_: Any, **named: Any) -> int:
    width = named.get("width", width)
    each = len(width) if isinstance(width, str) else _whole(width)
    return text_size(text) + (each + OF_A_PLACE) * _lines(text)


def _tabs(text: str, tabsize: Any = 8) -> int:
    return len(text) + text.count("\t") * _whole(tabsize)


def _replaced(text: Any, old: Any = "", new: Any = "", count: Any = None, **named: Any) -> int:
    if text_size(text, named.get("old", old), named.get("new", new)) > LARGEST:
        return LARGEST + 1
    text, old, new = str(text), str(named.get("old", old)), str(named.get("new", new))
    times = text.count(old) if old else len(text) + 1
    limit = named.get("count", count)
    times = min(times, limit) if isinstance(limit, int) and limit >= 0 else times
    return len(text) + times * len(new)


def _joined(between: Any, items: Any = ()) -> int:
    if not isinstance(items, str | list | tuple | set | frozenset | Mapping | range):
        raise TooLarge("to join what is no list")
    return _each(items) + text_size(items) + text_size(between) * len(items)


def _filter_joined(items: Any, between: Any = "", *_: Any, **named: Any) -> int:
    return _joined(named.get("d", between), items)


def _wrapped(text: Any, width: Any = 79, breaks: Any = True, wrapstring: Any = None, **named: Any) -> int:
    if text_size(text) > _LARGEST_FOR_SLOW:
        return LARGEST + 1
    between = named.get("wrapstring", wrapstring) or "\n"
    lines = _lines(text) + len(str(text)) // max(1, _whole(named.get("width", width)))
    return text_size(text) + 2 * lines * text_size(between)


def _batched(items: Any, number: Any = 1, fill_with: Any = None, **named: Any) -> int:
    times = _whole(named.get("linecount", named.get("slices", number)))
    return _each(items) + size(items) + times * size(named.get("fill_with", fill_with))


def _summed(_items: Any, attribute: Any = None, start: Any = 0, **named: Any) -> int:
    """Lists are not summed: each step copies all that came before."""
    return 0 if isinstance(named.get("start", start), int | float) else LARGEST + 1


def _split(text: str, sep: Any = None, *_: Any, **named: Any) -> int:
    sep = named.get("sep", sep)
    pieces = text.count(sep) if isinstance(sep, str) and sep else sum(map(text.count, _BLANKS))
    return len(text) + OF_A_PLACE * pieces


def _compared(text: Any, sought: Any = "", *_: Any, **named: Any) -> int:
    """Python seeks backwards, and characters at an end, with the product of both lengths."""
    return text_size(text) * text_size(named.get("chars", sought) or "") // _COMPARED_AS_ONE


def _split_backwards(text: str, sep: Any = None, *_: Any, **named: Any) -> int:
    sep = named.get("sep", sep)
    return max(_split(text, sep), _compared(text, sep))


def _trimmed(text: Any, *args: Any, **named: Any) -> int:
    return max(text_size(text), _compared(text, *args, **named))


def _as_json(value: Any, indent: Any = None) -> int:
    each = len(indent) if isinstance(indent, str) else _whole(indent)
    deep = each * 100 if each else 6
    return size(value) * min(deep, LARGEST)


def _round(_number: Any, precision: Any = 0, *_: Any, **named: Any) -> int:
    return 10 ** min(_whole(named.get("precision", precision)), 9) if precision or named else 0


def _in_a_form(_moment: Any, form: Any = "", *_: Any, **named: Any) -> int:
    return LARGEST * (size(named.get("form", named.get("format", form))) > _LONGEST_FORM) + 1


def percent_formatted(text: str, args: Any) -> int:
    """Return how long `text % args` gets at most; raises TooLarge for a width that is an argument."""
    length, fields = OF_A_PLACE * text.count("%") + len(text), 0
    if length > LARGEST:
        return length
    for field in _PERCENT.finditer(text):
        if "*" in (field[3], field[4]):
            raise TooLarge("a width that is taken from an argument")
        if field[5] == "(":
            raise TooLarge("a name with parentheses in it")
        length += sum(map(_number, field.group(3, 4)))
        fields += 1
    return length + (fields if isinstance(args, Mapping) else 1) * text_size(args)


def _number(digits: str | None) -> int:
    return 0 if not digits else int(digits) if len(digits) < 9 else LARGEST


def _filter_formatted(text: Any, *args: Any, **named: Any) -> int:
    return max(text_size(text), percent_formatted(str(text), named or args))


def brace_formatted(text: str, args: Iterable[Any]) -> int:
    """Return how long `text.format(…)` gets at most; raises TooLarge for a field inside a field."""
    length, fields = len(text) + OF_A_PLACE * (text.count("{") + text.count("}")), 0
    if length > LARGEST:
        return length
    for _, name, form, _ in islice(Formatter().parse(text), LARGEST):
        if form and "{" in form:
            raise TooLarge("a field inside a field")
        if form and len(form) > _LONGEST_FORM:
            raise TooLarge(f"a field of more than {_LONGEST_FORM:,} characters")
        length += sum(map(_number, _NUMBERS.findall(form or ""))) + 16 * len(form or "")
        fields += name is not None
    return length + fields * max((text_size(each) for each in args), default=0)


def _all(names: str, growth: Growth = _constant) -> dict[str, Growth]:
    return dict.fromkeys(names.split(), growth)


_OF_TEXTS: Mapping[str, Growth] = {
    **_all("capitalize casefold count endswith find format format_map index lower partition removeprefix"),
    **_all("removesuffix startswith swapcase title upper isalnum isalpha isascii isdecimal isdigit"),
    **_all("isidentifier islower isnumeric isprintable isspace istitle isupper"),
    **_all("ljust rjust center zfill", _width),
    **_all("split splitlines", _split),
    **_all("strip lstrip rstrip rfind rindex rpartition", _compared),
    "rsplit": _split_backwards,
    "expandtabs": _tabs,
    "replace": _replaced,
    "join": _joined,
}
_OF_TIMES: Mapping[str, Growth] = {
    **_all(
        "astimezone ctime date dst isocalendar isoformat isoweekday replace time timestamp timetuple timetz"
    ),
    **_all("toordinal tzname utcoffset weekday"),
    "strftime": _in_a_form,
}
_OF_METHODS: tuple[tuple[type | tuple[type, ...], Mapping[str, Growth]], ...] = (
    (str, _OF_TEXTS),
    (Mapping, _all("copy get items keys values")),
    ((list, tuple, range), _all("copy count index")),
    ((date, time), _OF_TIMES),
    (float, _all("is_integer")),
    (timedelta, _all("total_seconds")),
    (LoopContext, _all("changed cycle")),
    (Cycler, _all("next reset")),
)


def methods_of(value: Any) -> Mapping[str, Growth]:
    """Return the methods that a template may call of this value, with their growth.

    A growth is called with the value, and with what the method is called with.
    """
    return next((methods for kind, methods in _OF_METHODS if isinstance(value, kind)), {})


OF_FILTERS: Mapping[str, Growth] = MappingProxyType(
    {
        **_all("abs attr count d default dictsort filesizeformat first float int items last length random"),
        **_all("list map reject rejectattr reverse select selectattr", _each),
        **_all("dictsort groupby max min sort unique", _ordered),
        **_all("capitalize lower safe string truncate upper", _once),
        **_all("e escape forceescape", _times(5)),
        **_all("title urlencode wordcount", _times(OF_A_PLACE)),
        **_all("pprint striptags xmlattr", _times(LARGEST // _LARGEST_FOR_SLOW)),
        "batch": _batched,
        "center": _width,
        "format": _filter_formatted,
        "indent": _indented,
        "join": _filter_joined,
        "localtime": _in_a_form,
        "replace": _replaced,
        "round": _round,
        "slice": _batched,
        "sum": _summed,
        "tojson": _as_json,
        "trim": _trimmed,
        "wordwrap": _wrapped,
    }
)
"""The filters that there are, with their growth: called with what the filter is called with."""
