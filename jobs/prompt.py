"""Prompts: sandboxed Jinja2 templates in, the text that a model sees out; and expressions, yes or no out."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Template, TemplateSyntaxError, meta, nodes
from jinja2 import TemplateError as JinjaError
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser

from jobs.errors import TemplateError
from jobs.sandbox import LONGEST_RENDERING, Sandbox, metered
from jobs.template_lookups import Lookup, lookups
from jobs.text import well_formed

NAMES = frozenset({"job", "scheduled_for", "now", "gathered", "context", "last_output", "vars"})
NAMES_OF_AN_ANSWER = frozenset({"output", "last_output"})
LONGEST_PROMPT = 2_000_000
_OF_OTHER_FILES = (nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)
_TAG = re.compile(r"(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})", re.DOTALL)
_LOOKUP = re.compile(rf"\b(?:{'|'.join(sorted(NAMES))})\s*[.\[]")
_LONGEST_SAID = 1_000  # characters
_SHORT = 16_000  # characters; the compiled template of one takes some hundred kilobytes
_FAULTS = (
    JinjaError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,  # Jinja's own, of an argument that does not fit
    ArithmeticError,
    LookupError,
    SyntaxError,  # Python's own, of what Jinja lets pass
    RecursionError,
    MemoryError,
)  # what a template's own mistakes raise


@cache
def _environment(zone: ZoneInfo) -> Sandbox:
    def localtime(moment: datetime, form: str = "%Y-%m-%d %H:%M %Z") -> str:
        return moment.astimezone(zone).strftime(form)

    return Sandbox({"localtime": localtime})


def check_template(text: str) -> None:
    """Raise TemplateError when `text` does not compile or uses a name that no prompt has."""
    environment = _environment(ZoneInfo("UTC"))
    try:
        tree = environment.parse(text)
        others = next(tree.find_all(_OF_OTHER_FILES), None)
        environment.compile(tree)
    except TemplateSyntaxError as exc:
        raise TemplateError(f"line {exc.lineno}: {exc.message}") from exc
    except SyntaxError as exc:
        raise TemplateError(_of_python(exc)) from exc
    except _FAULTS as exc:
        raise TemplateError("it is too large or too deep; make it simpler") from exc
    if others is not None:
        raise TemplateError(f"line {others.lineno}: a template stands alone; put what it includes into it")
    _require_known(tree, environment, NAMES, "prompts have")


def check_expression(text: str) -> None:
    """Raise TemplateError when `text` is no expression over `output` and `last_output`."""
    environment = _environment(ZoneInfo("UTC"))
    try:
        tree = _tree_of(text, environment)
        environment.compile(tree)
    except TemplateSyntaxError as exc:
        raise TemplateError(f"{exc.message}") from exc
    except SyntaxError as exc:
        raise TemplateError(_of_python(exc)) from exc
    except _FAULTS as exc:
        raise TemplateError("it is too large or too deep; make it simpler") from exc
    _require_known(tree, environment, NAMES_OF_AN_ANSWER, "expressions have")


def _of_python(error: SyntaxError) -> str:
    """Return what Python says of a template that Jinja has taken: a name given twice, too many loops."""
    return _said(f"it does not compile: {error.msg}; take that out")


def holds(text: str, names: Mapping[str, Any]) -> bool:
    """Say whether an expression is true of these names. CPU-bound: call it off the loop; TemplateError."""
    environment = _environment(ZoneInfo("UTC"))
    try:
        template = environment.from_string(_tree_of(text, environment))
        with metered(LONGEST_RENDERING):
            return bool(getattr(template.make_module(dict(names)), _RESULT))
    except SecurityError as exc:
        raise TemplateError(_said(f"not allowed in an expression: {exc}")) from exc
    except _FAULTS as exc:
        raise TemplateError(_said(f"{type(exc).__name__}: {exc}")) from exc


def _said(fault: str) -> str:
    """Return what is wrong at bearable length: Python's own words show the value that was wrong."""
    return well_formed(fault if len(fault) <= _LONGEST_SAID else f"{fault[:_LONGEST_SAID]}…")


_RESULT = "result"


def _tree_of(text: str, environment: Sandbox) -> nodes.Template:
    """Return a template that gives an expression's value a name; raises TemplateSyntaxError."""
    parser = Parser(environment, text, state="variable")
    expression = parser.parse_expression()
    if not parser.stream.eos:
        raise TemplateSyntaxError("it goes on after its end", parser.stream.current.lineno)
    named = nodes.Assign(nodes.Name(_RESULT, "store"), expression, lineno=1)
    tree = nodes.Template([named], lineno=1)
    tree.set_environment(environment)
    return tree


def _require_known(tree: nodes.Template, environment: Sandbox, known: frozenset[str], whose: str) -> None:
    unknown = sorted(meta.find_undeclared_variables(tree) - known - set(environment.globals))
    if unknown:
        raise TemplateError(
            f"{unknown[0]!r} is not a name that {whose}; there are {', '.join(sorted(known))}"
        )


def asks_for(name: str, *templates: str | None) -> bool:
    """Say whether one of these templates uses a name."""
    return any(name in text and name in _names_in(text) for text in templates if text)


def expression_asks_for(name: str, text: str) -> bool:
    """Say whether an expression that was checked uses a name."""
    environment = _environment(ZoneInfo("UTC"))
    return name in meta.find_undeclared_variables(_tree_of(text, environment))


@lru_cache(maxsize=1024)
def _names_in(text: str) -> frozenset[str]:
    try:
        return frozenset(meta.find_undeclared_variables(_environment(ZoneInfo("UTC")).parse(text)))
    except _FAULTS:
        return NAMES  # rendering says what is wrong with it


def looked_up(text: str) -> tuple[Lookup, ...]:
    """Return what a template asks of its names by constant names; nothing for one that is faulty.

    That is up to its tags and where they stand, so many prompts around the same tags are read once.
    """
    if "{" not in text or not _LOOKUP.search(text):
        return ()
    if len(text) > _SHORT:
        return _lookups_in(text) or ()
    around = (part if odd % 2 else "\n" * part.count("\n") for odd, part in enumerate(_TAG.split(text)))
    found = _lookups_in("".join(around))
    return (_lookups_in(text) or ()) if found is None else found


@lru_cache(maxsize=1024)
def _lookups_in(text: str) -> tuple[Lookup, ...] | None:
    try:
        return lookups(_environment(ZoneInfo("UTC")).parse(text))
    except _FAULTS:
        return None  # the check of templates says what is wrong with it


def _compiled(text: str, zone: ZoneInfo) -> Template:
    """Return a template ready to be filled; a short one, which comes again and again, is compiled once."""
    return _remembered(text, zone) if len(text) <= _SHORT else _environment(zone).from_string(text)


@lru_cache(maxsize=512)
def _remembered(text: str, zone: ZoneInfo) -> Template:
    return _environment(zone).from_string(text)


def _bounded(parts: Iterable[str]) -> Iterator[str]:
    length = 0
    for part in parts:
        length += len(part)
        if length > LONGEST_PROMPT:
            raise TemplateError(
                f"the prompt grows past {LONGEST_PROMPT:,} characters; shorten what goes into it"
            )
        yield part


def render(text: str, *, zone: ZoneInfo, names: Mapping[str, Any], within: float = LONGEST_RENDERING) -> str:
    """Return the rendered text, well-formed: what a template makes up can be sent and written down.

    CPU-bound: call it off the loop. `within` is seconds. Raises TemplateError for an undefined name, a
    refused operation, work that takes longer, or a result of over 2,000,000 characters.
    """
    try:
        with metered(within):
            parts = list(_bounded(_compiled(text, zone).generate(**names)))
    except SecurityError as exc:
        raise TemplateError(_said(f"not allowed in a template: {exc}")) from exc
    except _FAULTS as exc:
        raise TemplateError(_said(f"{type(exc).__name__}: {exc}")) from exc
    return well_formed("".join(parts))
