"""The small written forms of a job's own keys: moments, expressions, lines of a schedule; each checked once.

A check raises ValueError with `what is wrong; what would be right`, and never quotes what it was given.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

from jobs.errors import TemplateError
from jobs.prompt import check_expression
from scheduler.config.forms import Text, Whole, one_or_more

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?")
_FIRST_YEAR, _LAST_YEAR = 1971, 9997
_MOST = 1_000_000_000


def _moment(value: Any) -> datetime:
    """Read a moment; without an offset it is local time of a zone that is not known here."""
    if isinstance(value, str) and _MOMENT.fullmatch(value.strip()):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError("is no day and time that there is; such as 2026-12-01T09:00") from None
        if _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            return moment
    raise ValueError("is not a moment; write 2026-12-01T09:00, local time, or one with Z or +01:00")


def in_utc(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return a written moment in UTC; one without an offset is of this zone."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


@lru_cache(maxsize=1024)
def _expression(text: str) -> str:
    try:
        check_expression(text)
    except TemplateError as exc:
        wrong, _, mend = str(exc).partition("; ")
        mend = "write it without braces" if "{{" in text else mend or "such as `output == last_output`"
        raise ValueError(f"is not an expression: {wrong}; {mend}") from exc
    return text


def _off(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() == "off" else value


def bare_command(value: Any) -> Any:
    """Read a command that is written without its mapping: its words alone."""
    return {"command": value} if isinstance(value, str | list) else value


Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=str)]
Expression = Annotated[Text, AfterValidator(_expression)]
Positive = Annotated[Whole, Field(ge=1, le=_MOST)]
Schedules = Annotated[
    tuple[Text, ...],
    BeforeValidator(one_or_more, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]
PositiveOrOff = Annotated[Positive | None, BeforeValidator(_off, json_schema_input_type=int | str)]
