"""One way of output: `--json` for machines, tables on a terminal, plain aligned columns in a pipe."""

import functools
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

from jobs.text import escaped, readable
from scheduler.cli.context import Context, pass_context

P = ParamSpec("P")
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under titles. `none` is said instead when there are no rows."""

    titles: Sequence[str]
    rows: Sequence[Sequence[object]]
    none: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, one to a line; empty values are left out."""

    pairs: Sequence[tuple[str, object]]


Block = Table | Facts | str


@dataclass(frozen=True, slots=True)
class View:
    """What a command has to say: `data` with `--json`, `blocks` to people, `code` to the shell.

    `notes` go to standard error for people and machines alike. An `error` is raised to people, and told to
    machines by `data` and `code`.
    """

    data: Any
    blocks: Sequence[Block]
    notes: Sequence[str] = ()
    code: int = 0
    error: Exception | None = None


def shown(
    command: Callable[Concatenate[Context, P], View],
) -> Callable[P, int]:
    """Give a command `--json`, and print what it returns. Stands under `@click.command`."""

    @pass_context
    @functools.wraps(command)
    def printed(context: Context, /, *args: P.args, **kwargs: P.kwargs) -> int:
        as_json = bool(kwargs.pop("as_json"))
        view = command(context, *args, **kwargs)
        put(view, as_json=as_json, color=context.color)
        return view.code

    option = click.option("--json", "as_json", is_flag=True, help="Print JSON of a stable shape.")
    decorated: Callable[P, int] = option(printed)
    return decorated


def put(view: View, *, as_json: bool, color: bool) -> None:
    """Print a view, for machines or for people; raises its error to people."""
    if view.error is not None and not as_json:
        raise view.error
    for note in view.notes:
        click.echo(readable(f"promptd: {note}"), err=True)
    if as_json:
        click.echo(to_json(view.data))
    else:
        show(view.blocks, color=color)


def to_json(data: Any) -> str:
    """Return data as indented JSON: times in UTC with Z, durations in seconds; a terminal may show it."""
    return escaped(json.dumps(data, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case Enum():
            return value.value
        case Path():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no place in JSON")


def show(blocks: Sequence[Block], *, color: bool = True) -> None:
    """Print blocks with an empty line between them: tables on a terminal, plain columns elsewhere."""
    on_terminal = sys.stdout.isatty()
    for number, block in enumerate(blocks):
        if number:
            click.echo()
        match block:
            case Table() if not block.rows:
                click.echo(readable(block.none))
            case Table() if on_terminal:
                _drawn(block, color=color)
            case Table():
                click.echo("\n".join(_columns([block.titles, *block.rows])))
            case Facts():
                pairs = [(name, value) for name, value in block.pairs if value not in (None, "")]
                click.echo("\n".join(_columns([(f"{name}:", value) for name, value in pairs])))
            case str():
                click.echo(readable(block))


def print_text(text: str) -> None:
    """Print what somebody else has written: as it is, but on a terminal for what would act on that."""
    click.echo(readable(text) if sys.stdout.isatty() else text)


def _cell(value: object) -> str:
    text = "-" if value in (None, "") else str(value)
    return " ".join(readable(text).split())


def _columns(rows: Sequence[Sequence[object]]) -> list[str]:
    """Return rows as lines of aligned columns, nothing cut off."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _drawn(table: Table, *, color: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - a pipe does not pay for it
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(no_color=not color, highlight=False)
    if max(map(len, _columns([table.titles, *table.rows]))) > console.width:
        for line in _listed(table, console.width):
            console.print(Text(line), soft_wrap=True)
        return
    drawn = RichTable(box=None, pad_edge=False, header_style="bold")
    for title in table.titles:
        drawn.add_column(title, no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(Text(_cell(value)) for value in row))
    console.print(drawn)


def _listed(table: Table, width: int) -> Iterator[str]:
    """Yield the rows of a table that is wider than the terminal: each an entry of its own, named values."""
    for row in table.rows:
        cells = zip(table.titles, map(_cell, row), strict=True)
        named = [f"{title.lower()} {cell}" for title, cell in cells if cell != "-"]
        yield from textwrap.wrap(
            " · ".join(named), width, initial_indent="• ", subsequent_indent="  ", break_long_words=False
        )
