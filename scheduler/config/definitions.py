"""What is written of a job as the values of its `Job`: one table; what `defaults` says is settled once."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jobs.definition import DEFAULT_TIMEOUT, Command, Retry
from jobs.delivery_state import Deliver
from jobs.request import Parameters
from scheduler.config.schema import CommandRow, DeliverRow, JobKeys, ParametersRow, RetryRow
from scheduler.config.texts import moved


def _as_it_is(value: Any) -> Any:
    return value


def _command(row: CommandRow | None) -> Command | None:
    if row is None:
        return None
    written = (getattr(row, key, None) for key in ("timeout", "max_bytes"))
    given = {key: value for key, value in zip(("timeout", "max_bytes"), written, strict=True) if value}
    return Command(row.command, row.shell, **given)


def _retry(row: RetryRow | None) -> Retry | None:
    return Retry(row.max, row.delays, row.on) if row is not None and row.max else None


def _deliver(rows: tuple[DeliverRow, ...]) -> tuple[Deliver, ...]:
    return tuple(Deliver(moved(row.to), row.on) for row in rows)


def _parameters(row: ParametersRow | None) -> Parameters:
    if row is None:
        return Parameters()
    return Parameters(
        temperature=row.temperature,
        max_output_tokens=row.max_output_tokens,
        reasoning_effort=row.reasoning_effort,
        seed=row.seed,
        response_format=MappingProxyType(row.response_format) if row.response_format is not None else None,
        extra_body=MappingProxyType(row.extra_body),
    )


_SETTLED: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                *("description", "tags", "fallback_on", "on_truncated", "repeat_safe", "store_prompt"),
                *("concurrency", "on_crash", "max_tokens_per_day", "silent_when", "pause_after_failures"),
            ),
            _as_it_is,
        ),
        "vars": lambda own: MappingProxyType(own or {}),
        "parameters": _parameters,
        "timeout": lambda timeout: timeout or DEFAULT_TIMEOUT,
        "gather": _command,
        "condition": _command,
        "context_from": lambda names: tuple(dict.fromkeys(names)),
        "after": lambda names: tuple(dict.fromkeys(names)),
        "retry": _retry,
        "deliver": _deliver,
    }
)
"""How a written key becomes the value of the same name; what is not here depends on more than itself."""


class Definitions:
    """Settles the keys of rows that stand over the same `defaults`."""

    def __init__(self, defaults: JobKeys) -> None:
        self._defaults = {key: settle(getattr(defaults, key)) for key, settle in _SETTLED.items()}

    def of(self, row: JobKeys) -> dict[str, Any]:
        """Return the values by name; only what the row says itself is settled anew."""
        own = {key: _SETTLED[key](getattr(row, key)) for key in row.model_fields_set if key in _SETTLED}
        return self._defaults | own
