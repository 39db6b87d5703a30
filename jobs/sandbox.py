"""Jinja's sandbox with bounds: on every value that a template makes, on all of them, and on their time."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import tzinfo
from functools import update_wrapper
from types import MappingProxyType
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.lexer import TOKEN_WHITESPACE, TokenStream
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from jobs import clock, template_growth
from jobs.template_tree import Counting, refuse_long
from jobs.template_values import LARGEST, Attributes, mapping, plain, size, text_size

LONGEST_RENDERING = 10.0  # seconds
MOST_MADE = 64_000_000
"""Characters that one rendering may make on the way, those included that nobody sees."""

MOST_WORDS = 20_000
"""Names, signs and texts that a template may consist of: to compile these takes half a second."""

_LARGEST_POWER = 64
_LARGEST_BASE = 2_000_000
_OF_JINJA = frozenset({"_block_vars", "_loop_vars"})  # what a call is told besides, where it stands in a loop
_NO_FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType({})


class _Meter:
    """What one rendering has left."""

    __slots__ = ("_left", "_until", "_within")

    def __init__(self, within: float) -> None:
        self._until, self._left, self._within = clock.monotonic() + within, MOST_MADE, within

    def count(self, made: int) -> None:
        """Count what was made, and look at the time; raises SecurityError when there is nothing left."""
        self._left -= made
        if self._left < 0:
            raise SecurityError(
                f"more than {MOST_MADE:,} characters made on the way; shorten what goes into it"
            )
        if clock.monotonic() > self._until:
            raise SecurityError(
                f"work that goes on after {self._within:g} s; make it simpler, or shorten what goes into it"
            )


_METER: ContextVar[_Meter | None] = ContextVar("_METER", default=None)


@contextmanager
def metered(within: float) -> Iterator[None]:
    """Bound all that this thread renders in the block, taken together; `within` is seconds."""
    before = _METER.set(_Meter(within))
    try:
        yield
    finally:
        _METER.reset(before)


def _count(made: int) -> None:
    meter = _METER.get()
    if meter is not None:
        meter.count(made)


def _kept(value: Any) -> Any:
    """Return what was made, plain and counted; raises SecurityError when it is too large to go on with."""
    value = plain(value)
    made = len(value) if isinstance(value, str) else size(value)
    _count(made)
    _allow(made)
    if isinstance(value, int):
        refuse_long(value)
    return value


def _shown(value: Any) -> Any:
    """Return what is written into the text as a text; see `_kept`."""
    if not isinstance(value, str):
        _allow(text_size(value))
    return _kept(value)


def _allow(made: int) -> None:
    """Refuse what is too large before it is made."""
    if made > LARGEST:
        raise SecurityError(f"a value of more than {LARGEST:,} characters; shorten what goes into it")


def _step(weight: int) -> bool:
    """Count one turn of a loop, or one call of a macro."""
    _count(weight)
    return True


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of every template and expression; whoever renders does it in `metered`.

    It loads nothing: templates stand alone. It knows the filters and methods of `template_growth`, and no
    others; what they return is plain data, and never lazy.
    """

    intercepted_binops = frozenset(("+", "-", "*", "//", "**", "%"))  # `/` makes a short number, and soon
    step = staticmethod(_step)
    kept = staticmethod(_kept)
    mapped = staticmethod(mapping)

    def __init__(self, filters: Mapping[str, Callable[..., Any]] = _NO_FILTERS) -> None:
        # optimized=False: constants are computed while rendering, within bounds, and not while checking
        super().__init__(undefined=StrictUndefined, optimized=False, finalize=_shown)
        del self.globals["lipsum"]
        self.globals.update(dict=mapping, namespace=Attributes)
        known = {**self.filters, **filters}
        self.filters = {
            name: _bounded_filter(name, known[name]) for name in template_growth.OF_FILTERS if name in known
        }
        self.tests = {name: _bounded_test(each) for name, each in self.tests.items()}

    def _generate(self, source: nodes.Template, *args: Any, **settings: Any) -> str:
        bounded: nodes.Template = Counting().visit(source)
        bounded.set_environment(self)
        return super()._generate(bounded, *args, **settings)

    def _tokenize(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> TokenStream:
        words = _few(self.lexer.tokeniter(source, name, filename, state))
        return TokenStream(self.lexer.wrap(words, name, filename), name, filename)

    @staticmethod
    def concat(pieces: Any) -> str:
        """Join what a block or macro has written."""
        pieces = list(pieces)
        _allow(sum(map(len, pieces)))
        return str(_kept("".join(pieces)))

    @staticmethod
    def put_together(*values: Any) -> str:
        """Return `a ~ b`."""
        _allow(text_size(*values))
        return str(_kept("".join(map(str, values))))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return `a.b`, as Jinja does, and look at the time."""
        _count(1)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return `a[b]`, as Jinja does, and look at the time."""
        _count(1)
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse what Jinja does, the workings of time zones, and every method that nobody judged."""
        if isinstance(obj, tzinfo):
            return attr == "key"
        if callable(value) and not isinstance(obj, Namespace) and attr not in template_growth.methods_of(obj):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute a sum, product, power or formatted text of bounded size."""
        match operator:
            case "**" if abs(right) > _LARGEST_POWER or abs(left) > _LARGEST_BASE:
                raise SecurityError("a power of this size")
            case "*":
                _allow(_product(left, right))
            case "+":
                _allow(size(left, right))
            case "%" if isinstance(left, str):
                _allow(template_growth.percent_formatted(left, right))
            case _:
                pass
        return _kept(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, a macro or a function of ours, and count what it makes."""
        if __obj is _step or __obj is _kept:
            return __obj(*args)
        named = {name: each for name, each in kwargs.items() if name not in _OF_JINJA}
        _allow(size(*args, *named.values()))
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        growth = template_growth.methods_of(owner).get(name)
        if growth is not None:
            _allow(growth(owner, *args, **named))
        return _kept(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return `format` of a text as Jinja guards it, with a bound."""
        guarded = super().wrap_str_format(value)
        if guarded is None:
            return None

        def formatted(*args: Any, **named: Any) -> str:
            values = args[0].values() if value.__name__ == "format_map" else (*args, *named.values())
            _allow(template_growth.brace_formatted(value.__self__, tuple(values)))
            return guarded(*args, **named)

        return update_wrapper(formatted, value)


def _few(tokens: Iterator[tuple[int, str, str]]) -> Iterator[tuple[int, str, str]]:
    """Yield what a template consists of, with its comments; raises TemplateSyntaxError past MOST_WORDS."""
    words = 0
    for line, kind, text in tokens:
        words += kind != TOKEN_WHITESPACE
        if words > MOST_WORDS:
            raise TemplateSyntaxError(
                f"it has more than {MOST_WORDS:,} words and signs outside of its plain text; make it simpler",
                line,
            )
        yield line, kind, text


def _product(left: Any, right: Any) -> int:
    """Return how large a product gets: of two numbers, or of something and how often it comes."""
    for repeated, times in ((left, right), (right, left)):
        if isinstance(times, int) and not isinstance(repeated, int | float):
            once = len(repeated) if isinstance(repeated, str | bytes) else size(repeated)
            return once * abs(times)
    return size(left, right)


def _listed(items: Iterator[Any]) -> list[Any]:
    """Return what can be looked at twice; each item counts."""
    listed = []
    for each in items:
        _count(1)
        listed.append(each)
    return listed


def _bounded_filter(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that counts; it is told its environment or context as before."""
    passed = 1 if getattr(made, "jinja_pass_arg", None) is not None else 0
    growth = template_growth.OF_FILTERS[name]

    def bounded(*args: Any, **named: Any) -> Any:
        _count(1)
        _allow(growth(*args[passed:], **named))
        value = made(*args, **named)
        return _kept(_listed(value) if isinstance(value, Iterator) else value)

    return update_wrapper(bounded, made)


def _bounded_test(made: Any) -> Callable[..., bool]:
    """Return a test that looks at the time."""

    def bounded(*args: Any, **named: Any) -> bool:
        _count(1)
        return bool(made(*args, **named))

    return update_wrapper(bounded, made)
