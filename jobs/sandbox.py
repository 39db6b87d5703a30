"""Jinja's sandbox with bounds: on every value that a template makes, on all of them, and on their time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import tzinfo
from functools import update_wrapper
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.lexer import Token, TokenStream
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from jobs import clock, template_growth
from jobs.template_growth import LARGEST, TooLarge, size

LONGEST_RENDERING = 10.0  # seconds
MOST_MADE = 64_000_000
"""Characters that one rendering may make on the way, those included that nobody sees."""

MOST_WORDS = 50_000
"""Names, signs and texts that a template may consist of: to compile these takes about a second."""

_LARGEST_POWER = 64
_LONGEST_NUMBER = 100_000  # bits
_LARGEST_BASE = 2_000_000
_LARGEST_FOR_SLOW = 100_000
# Filters whose work grows with the square of a text, or that take a microsecond for each of its characters;
# and all those that write a list down as text.
_SLOW = frozenset({"pprint", "striptags", "urlize", "wordwrap", "xmlattr"})
_WRITERS = _SLOW | {
    *("capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace", "safe"),
    *("string", "title", "tojson", "trim", "truncate", "upper", "urlencode", "wordcount"),
}
_LONGEST_TIME_FORM = 1_000
_NEEDLESS = ("lipsum",)
_NEEDLESS_METHODS = frozenset({"from_bytes", "maketrans", "strptime", "translate"})


class _Meter:
    """What one rendering has left."""

    __slots__ = ("_left", "_until", "_within")

    def __init__(self, within: float) -> None:
        self._until, self._left, self._within = clock.monotonic() + within, MOST_MADE, within

    def count(self, made: int) -> None:
        """Count what was made, and look at the time; raises SecurityError when there is nothing left."""
        self._left -= made
        if self._left < 0:
            raise SecurityError(f"more than {MOST_MADE:,} characters made on the way")
        if clock.monotonic() > self._until:
            raise SecurityError(f"work that goes on after {self._within:g} s")


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
    """Return what was made, counted; raises SecurityError when it is too large to go on with."""
    made = len(value) if isinstance(value, str) else size(value)
    _count(made)
    _allow(made)
    if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
        raise SecurityError(f"a number of more than {_LONGEST_NUMBER:,} bits")
    return value


def _allow(made: int) -> None:
    """Refuse what is too large before it is made."""
    if made > LARGEST:
        raise SecurityError(f"a value of more than {LARGEST:,} characters")


def _step(weight: int) -> bool:
    """Count one turn of a loop, or one call of a macro."""
    _count(weight)
    return True


class _Bounded(NodeTransformer):
    """Makes a template count its turns and calls, and the texts and lists that it puts together."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        """Count each turn, also those that a condition leaves out."""
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_called("step", nodes.Const(_weight(node.body)))))
        if node.test is not None:
            node.test = nodes.And(_called("step", nodes.Const(1)), node.test)
        return node

    def _block(self, node: Any) -> nodes.Node:
        """Count each call."""
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_called("step", nodes.Const(_weight(node.body)))))
        return node

    visit_Macro = visit_CallBlock = _block

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        """Put texts together where they are counted."""
        self.generic_visit(node)
        return _called("put_together", *node.nodes)

    def visit_Const(self, node: nodes.Const) -> nodes.Const:
        """Refuse a number that it takes seconds to divide."""
        _kept(node.value)
        return node

    def _literal(self, node: Any) -> nodes.Expr:
        self.generic_visit(node)
        stored = isinstance(node, nodes.Tuple) and node.ctx != "load"
        return node if stored else _called("kept", node)

    visit_List = visit_Tuple = visit_Dict = _literal


def _called(name: str, *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


def _weight(body: list[nodes.Node]) -> int:
    """Return how many pieces of text a body writes that no call counts."""
    return 1 + sum(1 for node in body for _ in node.find_all(nodes.TemplateData))


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of every template and expression; whoever renders does it in `metered`.

    It loads nothing: templates stand alone.
    """

    intercepted_binops = frozenset(("+", "*", "**", "%"))
    step = staticmethod(_step)
    kept = staticmethod(_kept)

    def __init__(self) -> None:
        # optimized=False: constants are computed while rendering, within bounds, and not while checking
        super().__init__(undefined=StrictUndefined, optimized=False, finalize=_kept)
        for name in _NEEDLESS:
            del self.globals[name]
        self.filters = {name: _bounded_filter(name, each) for name, each in self.filters.items()}

    def _generate(self, source: nodes.Template, *args: Any, **settings: Any) -> str:
        bounded: nodes.Template = _Bounded().visit(source)
        bounded.set_environment(self)
        return super()._generate(bounded, *args, **settings)

    def _tokenize(self, *args: Any, **settings: Any) -> TokenStream:
        stream = super()._tokenize(*args, **settings)
        return TokenStream(_few(stream), stream.name, stream.filename)

    @staticmethod
    def concat(pieces: Any) -> str:
        """Join what a block or macro has written."""
        pieces = list(pieces)
        _allow(sum(map(len, pieces)))
        return str(_kept("".join(pieces)))

    @staticmethod
    def put_together(*values: Any) -> str:
        """Return `a ~ b`."""
        _allow(sum(map(size, values)))
        return str(_kept("".join(map(str, values))))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse what Jinja does, the workings of time zones, and tables that replace characters."""
        if isinstance(obj, tzinfo) or attr in _NEEDLESS_METHODS:
            return attr == "key"
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute a sum, product, power or formatted text of bounded size."""
        match operator:
            case "**" if abs(right) > _LARGEST_POWER or abs(left) > _LARGEST_BASE:
                raise SecurityError("a power of this size")
            case "*":
                _allow(_product(left, right))
            case "+":
                _allow(size(left) + size(right))
            case "%" if isinstance(left, str):
                _allow(_told(template_growth.percent_formatted, left, right))
            case _:
                pass
        return _kept(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, a macro or a function of ours, and count what it makes."""
        if __obj is _step:
            return _step(*args)
        args = __self._checked(__obj, args, kwargs)
        return _kept(super().call(__context, __obj, *args, **kwargs))

    def _checked(self, called: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """Return the arguments of a call that may be made."""
        for each in (*args, *named.values()):
            _allow(size(each))
        text, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
        if not isinstance(text, str | bytes | int):
            if name == "strftime":
                _allow(LARGEST * (size(args) > _LONGEST_TIME_FORM))
            return args
        if name == "join" and args:
            args = (_listed(args[0]), *args[1:])
        if name in template_growth.OF_METHODS:
            _allow(_told(template_growth.OF_METHODS[name], text, *args, **named))
        return args

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return `format` of a text as Jinja guards it, with a bound."""
        guarded = super().wrap_str_format(value)
        if guarded is None:
            return None

        def formatted(*args: Any, **named: Any) -> str:
            values = args[0].values() if value.__name__ == "format_map" else (*args, *named.values())
            _allow(_told(template_growth.brace_formatted, value.__self__, tuple(values)))
            return guarded(*args, **named)

        return update_wrapper(formatted, value)


def _few(stream: TokenStream) -> Iterator[Token]:
    for number, token in enumerate(stream):
        if number == MOST_WORDS:
            raise TemplateSyntaxError(f"it has more than {MOST_WORDS:,} words and signs", token.lineno)
        yield token


def _product(left: Any, right: Any) -> int:
    """Return how large a product gets: of two numbers, or of something and how often it comes."""
    for repeated, times in ((left, right), (right, left)):
        if isinstance(times, int) and not isinstance(repeated, int | float):
            once = len(repeated) if isinstance(repeated, str | bytes) else size(repeated)
            return once * abs(times)
    return size(left) + size(right)


def _told(growth: Callable[..., int], *args: Any, **named: Any) -> int:
    try:
        return growth(*args, **named)
    except TooLarge as exc:
        raise SecurityError(str(exc)) from exc


def _listed(items: Any) -> Any:
    """Return what can be looked at twice."""
    return items if isinstance(items, str | list | tuple) else list(items)


def _bounded_filter(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that counts; it is told its environment or context as before."""
    passed = 1 if getattr(made, "jinja_pass_arg", None) is not None else 0
    growth = template_growth.OF_FILTERS.get(name)
    slowness = LARGEST // _LARGEST_FOR_SLOW if name in _SLOW else 1

    def bounded(*args: Any, **named: Any) -> Any:
        before, value, rest = args[:passed], args[passed], args[passed + 1 :]
        if name == "join":
            value = _listed(value)
        if name in _WRITERS:
            _allow(size(value) * slowness)
        if growth is not None:
            _allow(_told(growth, value, *rest, **named))
        return _kept(made(*before, value, *rest, **named))

    return update_wrapper(bounded, made)
