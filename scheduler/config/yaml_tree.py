"""YAML text in, plain data and its node tree out; what is dangerous or ambiguous is refused with its place.

Scalars are read by the core schema of YAML 1.2: `no`, `12:30` and `2026-12-01` are the texts they look like.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from yaml import MappingNode, Node, ScalarNode, SequenceNode, YAMLError
from yaml.error import Mark, MarkedYAMLError

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # a PyYAML without libyaml: the same rules, ten times slower
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

KeyPath = tuple[str | int, ...]

DEEPEST = 64
MOST_NODES = 500_000
MOST_REPEATED = 50_000
_TAG = "tag:yaml.org,2002:"
_TAB = re.compile(r"^[ ]*\t", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong with a file's text; `line` and `column` count from 1, 0 is the whole file."""

    line: int
    column: int
    wrong: str
    mend: str
    path: KeyPath = ()


class Unreadable(Exception):
    """The text is no YAML that this program takes."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.wrong)
        self.mistake = mistake


def parse(text: str) -> tuple[Any, Node, list[Mistake]]:
    """Return the plain data, the node tree, and mistakes that leave the remainder readable.

    Raises Unreadable when nothing can be made of the text.
    """
    control = _CONTROL.search(text)
    if control:
        raise Unreadable(
            _at(text, control.start(), "holds characters that are no text", "save it as plain UTF-8 text")
        )
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except MarkedYAMLError as exc:
        raise Unreadable(_syntax(text, exc)) from None
    except YAMLError:
        raise Unreadable(
            Mistake(1, 1, "holds characters that are no text", "save it as plain UTF-8 text")
        ) from None
    if root is None:
        raise Unreadable(Mistake(1, 1, "is empty", "see `promptd init` for a file to begin with"))
    builder = _Builder()
    return builder.build(root), root, builder.mistakes


def _at(text: str, offset: int, wrong: str, mend: str) -> Mistake:
    start = text.rfind("\n", 0, offset) + 1
    return Mistake(text.count("\n", 0, offset) + 1, offset - start + 1, wrong, mend)


def _syntax(text: str, exc: MarkedYAMLError) -> Mistake:
    """Return the syntax error in plain words; a tab before it that indents a line is its usual cause."""
    earlier = exc.context_mark if exc.context in _BEGUN_EARLIER else None
    mark = earlier or exc.problem_mark or exc.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if isinstance(exc, _Refused):
        return Mistake(line, column, exc.wrong, exc.mend)
    problem = exc.problem or "cannot be read"
    if "document" in (exc.context or "") + problem and "single" in (exc.context or ""):
        return Mistake(
            line, column, "a second document begins here", "keep one document in a file: remove the `---`"
        )
    if "undefined alias" in problem or "undefined alias" in (exc.context or ""):
        return Mistake(
            line, column, "an alias names no anchor before it", "put text that begins with * in quotes"
        )
    tab = next((m for m in _TAB.finditer(text) if abs(text.count("\n", 0, m.start()) + 1 - line) <= 1), None)
    if tab:
        return _at(text, tab.end() - 1, "a tab is used to indent", "use spaces")
    if "\\t" in problem or "'\t'" in problem:
        return Mistake(line, column, "a tab is used between words", "use spaces")
    known = _BEGUN_EARLIER.get(exc.context, (problem, "check the indentation, quotes and colons here"))
    return Mistake(line, column, f"is not YAML: {known[0]}", known[1])


_BEGUN_EARLIER: dict[str | None, tuple[str, str]] = {
    "while scanning a quoted scalar": (
        "a quote that begins here is not closed, or not well",
        "close it; inside of it, write '' for ', and \\\" for \"",
    ),
    "while scanning a simple key": (
        "this line is neither `key: value` nor indented as a part of what stands above it",
        "indent it, or put a colon behind its key",
    ),
}
"""What is noticed later than it is wrong: at the end of the file, or in the next line."""


class _Refused(MarkedYAMLError):
    def __init__(self, mark: Mark | None, wrong: str, mend: str) -> None:
        super().__init__(None, None, wrong, mark)
        self.wrong, self.mend = wrong, mend


class _Loader(_SafeLoader):
    """Composes nodes, never values; counts depth and nodes while it does."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML reads it from the class

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0

    def descend_resolver(self, current_node: Node | None, current_index: int) -> None:
        self._depth += 1
        self._nodes += 1
        if self._depth > DEEPEST:
            mark = current_node.start_mark if current_node else None
            raise _Refused(mark, f"is nested more than {DEEPEST} deep", "write it flatter")
        if self._nodes > MOST_NODES:
            mark = current_node.start_mark if current_node else None
            raise _Refused(
                mark, f"holds more than {MOST_NODES:,} values", "split the jobs over files in jobs_dir"
            )

    def ascend_resolver(self) -> None:
        self._depth -= 1


for _name, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|nan)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(
        _TAG + _name, re.compile(f"(?:{_form})\\Z"), ["" if c == "\0" else c for c in _first]
    )


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _integer(text: str) -> int:
    return int(text, 0)


def _number(text: str) -> float:
    value = float(text.replace("_", "")) if not text.lstrip("+-").startswith((".i", ".n")) else math.nan
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


_SCALARS: dict[str, Callable[[str], object]] = {
    _TAG + "str": str,
    _TAG + "bool": _boolean,
    _TAG + "int": _integer,
    _TAG + "float": _number,
    _TAG + "null": lambda text: None,
}


class _Builder:
    """Makes plain data of nodes; notes what it refuses and goes on."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._inside_alias = False
        self._repeated = 0
        self._path: list[str | int] = []

    def build(self, node: Node) -> Any:
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        with self._entered(node):
            if isinstance(node, MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node)
            if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
                return [self._below(number, child) for number, child in enumerate(node.value)]
            self._note(node, "carries a YAML tag", "remove the word that begins with `!`")
            return None

    @contextmanager
    def _entered(self, node: Node) -> Iterator[None]:
        """Bound what aliases repeat: a small file could otherwise stand for billions of values."""
        key, outermost = id(node), False
        if key in self._open:
            raise Unreadable(_mistake(node, "an alias contains itself", "write the value out"))
        if key in self._seen and not self._inside_alias:
            self._inside_alias = outermost = True
        self._seen.add(key)
        if self._inside_alias:
            self._repeated += 1 + len(node.value)
            if self._repeated > MOST_REPEATED:
                raise Unreadable(_mistake(node, "aliases repeat too much", "write the values out"))
        self._open.add(key)
        yield
        self._open.discard(key)
        if outermost:
            self._inside_alias = False

    def _mapping(self, node: MappingNode) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.tag != _TAG + "str":
                self._note(key, "a key is not text", "put the key in quotes")
            elif key.value == "<<":
                self._note(
                    key, "merge keys (`<<`) are not read", "write the keys out, or put them under defaults"
                )
            elif key.value in made:
                first = next(k for k, _ in node.value if k.value == key.value)
                line = first.start_mark.line + 1
                self._note(key, f"is written twice, first in line {line}", "keep one of the two", key.value)
            else:
                made[key.value] = self._below(key.value, value)
        return made

    def _below(self, part: str | int, node: Node) -> Any:
        self._path.append(part)
        made = self.build(node)
        self._path.pop()
        return made

    def _scalar(self, node: ScalarNode) -> Any:
        convert = _SCALARS.get(node.tag)
        if convert is None:
            self._note(node, "carries a YAML tag", "remove the word that begins with `!`")
            return ""
        if "\0" in node.value:
            self._note(node, "holds a NUL character", "remove it")
            return ""
        try:
            return convert(node.value)
        except (ValueError, KeyError, OverflowError):
            self._note(node, "is not a number or value that can be used", "put it in quotes if it is text")
            return ""

    def _note(self, node: Node, wrong: str, mend: str, *below: str) -> None:
        self.mistakes.append(replace(_mistake(node, wrong, mend), path=(*self._path, *below)))


def _mistake(node: Node, wrong: str, mend: str) -> Mistake:
    return Mistake(node.start_mark.line + 1, node.start_mark.column + 1, wrong, mend)
