"""Prompts: sandboxed Jinja2 templates in, the text that a model sees out."""

from collections.abc import Mapping, Sized
from datetime import datetime
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import StrictUndefined, TemplateSyntaxError, meta
from jinja2 import TemplateError as JinjaError
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jobs.errors import TemplateError
from jobs.text import well_formed

NAMES = frozenset({"job", "scheduled_for", "now", "gathered", "context", "last_output", "vars"})
LONGEST_PROMPT = 2_000_000
_LARGEST_POWER = 64
_FAULTS = (
    JinjaError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    LookupError,
    RecursionError,
    MemoryError,
)  # what a template's own mistakes raise


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which also refuses to multiply what would not fit."""

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute a product or a power of bounded size."""
        if operator == "**" and (abs(right) > _LARGEST_POWER or abs(left) > LONGEST_PROMPT):
            raise SecurityError("a power of this size")
        for text, times in ((left, right), (right, left)):
            if isinstance(text, Sized) and isinstance(times, int) and len(text) * times > LONGEST_PROMPT:
                raise SecurityError(f"a text repeated past {LONGEST_PROMPT:,} characters")
        return super().call_binop(context, operator, left, right)


@cache
def _environment(zone: ZoneInfo) -> _Environment:
    # optimized=False: constants are computed while rendering, within bounds, and not while checking
    environment = _Environment(undefined=StrictUndefined, optimized=False)

    def localtime(moment: datetime, form: str = "%Y-%m-%d %H:%M %Z") -> str:
        return moment.astimezone(zone).strftime(form)

    environment.filters["localtime"] = localtime
    return environment


def check_template(text: str) -> None:
    """Raise TemplateError when `text` does not compile or uses a name that no prompt has."""
    environment = _environment(ZoneInfo("UTC"))
    try:
        tree = environment.parse(text)
        environment.compile(tree)
    except TemplateSyntaxError as exc:
        raise TemplateError(f"line {exc.lineno}: {exc.message}") from exc
    unknown = sorted(meta.find_undeclared_variables(tree) - NAMES - set(environment.globals))
    if unknown:
        raise TemplateError(
            f"{unknown[0]!r} is not a name that prompts have; there are {', '.join(sorted(NAMES))}"
        )


def asks_for(name: str, *templates: str | None) -> bool:
    """Say whether one of these templates uses a name."""
    return any(name in text and name in _names_in(text) for text in templates if text)


@lru_cache(maxsize=1024)
def _names_in(text: str) -> frozenset[str]:
    try:
        return frozenset(meta.find_undeclared_variables(_environment(ZoneInfo("UTC")).parse(text)))
    except _FAULTS:
        return NAMES  # rendering says what is wrong with it


def render(text: str, *, zone: ZoneInfo, names: Mapping[str, Any]) -> str:
    """Return the rendered text, well-formed: what a template makes up can be sent and written down.

    CPU-bound: call it off the loop.
    Raises TemplateError for an undefined name, a refused operation, or a result of over 2,000,000 characters.
    """
    try:
        parts: list[str] = []
        length = 0
        for part in _environment(zone).from_string(text).generate(**names):
            length += len(part)
            if length > LONGEST_PROMPT:
                raise TemplateError(
                    f"the prompt grows past {LONGEST_PROMPT:,} characters; shorten what goes into it"
                )
            parts.append(part)
    except SecurityError as exc:
        raise TemplateError(well_formed(f"not allowed in a template: {exc}")) from exc
    except _FAULTS as exc:
        raise TemplateError(well_formed(f"{type(exc).__name__}: {exc}")) from exc
    return well_formed("".join(parts))
