"""Arguments that complete themselves in a shell: job names, run ids, providers, delivery targets."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from sqlite3 import Error as SqliteError

import click
from click.shell_completion import CompletionItem

from jobs.errors import ErrorClass, PromptdError
from jobs.text import is_well_formed
from scheduler.cli.context import Context

_NEWEST = 30


class _Completed(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """A text whose choices are looked up only when a shell asks for them."""

    def __init__(self, name: str, choices: Callable[[Context], Iterable[tuple[str, str]]]) -> None:
        self.name, self._choices = name, choices

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the choices that begin with what was typed; none where they cannot be read."""
        given = ctx.find_root().params.get("config")
        context = Context(config=Path(given) if given else None)
        try:
            found = list(self._choices(context))
        except (PromptdError, OSError, SqliteError):
            return []
        return [CompletionItem(value, help=help_) for value, help_ in found if value.startswith(incomplete)]


def _jobs(context: Context) -> Iterable[tuple[str, str]]:
    return ((name, job.job.description) for name, job in context.settings.jobs.items())


def _runs(context: Context) -> Iterable[tuple[str, str]]:
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 - only completion of a run's id needs the database

    from jobs.store.ledger import RunFilter, list_runs  # noqa: PLC0415

    try:
        with context.reading() as connection:
            rows = list_runs(connection, RunFilter(limit=_NEWEST))
    except DBAPIError:
        return []
    return ((str(row["id"]), f"{row['job']} {row['state']}") for row in rows)


def _providers(context: Context) -> Iterable[tuple[str, str]]:
    return ((provider.name, provider.base_url or "") for provider in context.any_registry)


def _targets(context: Context) -> Iterable[tuple[str, str]]:
    return ((name, "") for name in context.settings.delivery)


class Utf8(click.ParamType):  # type: ignore[type-arg] # as above
    """A text that can be sent and written down."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; fails with a usage error for bytes that are not UTF-8."""
        text = str(value)
        if not is_well_formed(text):
            self.fail("it is not UTF-8 text; convert it, such as with `iconv -t UTF-8`", param, ctx)
        return text


TEXT = Utf8()
JOB = _Completed("job", _jobs)
PROVIDER = _Completed("provider", _providers)
TARGET = _Completed("target", _targets)


class Drilled(_Completed):
    """A provider in any spelling, and the class with which it is to fail: `zai=quota_billing`."""

    def __init__(self) -> None:
        super().__init__("provider=class", _providers)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ErrorClass]:
        """Return the name as it is spelled, and the class; fails with the nearest classes for another."""
        if isinstance(value, tuple):
            return value
        provider, equals, given = str(value).rpartition("=")
        if not equals or not provider.strip():
            self.fail(f"{value!r} is not PROVIDER=CLASS, such as zai=quota_billing", param, ctx)
        spelled = given.strip().lower().replace("-", "_")
        if spelled not in set(ErrorClass):
            near = get_close_matches(spelled, list(ErrorClass), n=3) or sorted(ErrorClass)
            self.fail(f"{given!r} is no class of failure; did you mean {' or '.join(near)}?", param, ctx)
        return provider, ErrorClass(spelled)


class RunId(_Completed):
    """A run's number."""

    def __init__(self) -> None:
        super().__init__("id", _runs)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; fails with a usage error for anything else."""
        text = str(value)
        if not (text.isascii() and text.isdigit()):
            self.fail(f"{text!r} is no run's id; see `promptd run list`", param, ctx)
        return min(int(text), 2**63 - 1)


RUN = RunId()
DRILLED = Drilled()
