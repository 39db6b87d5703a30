"""`promptd config show` and `schema`: the effective values with their places, and what may be written."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from scheduler.cli.context import Context
from scheduler.cli.tables import Table, View, shown, to_json

_LEAF = {"value", "from"}


@click.command("show")
@shown
def show(context: Context) -> View:
    """Print every value in effect, and where it comes from; secrets are masked."""
    from scheduler.config.effective import effective  # noqa: PLC0415 - `schema` does not pay for it

    shape = effective(context.loaded)
    titles = ("KEY", "VALUE", "FROM")
    return View(shape, [Table(titles, list(_lines(shape)))])


@click.command("schema")
def schema() -> None:
    """Print the JSON Schema of promptd.yaml, by which editors complete and check it."""
    from scheduler.config.json_schema import json_schema  # noqa: PLC0415 - `show` does not pay for it

    click.echo(to_json(json_schema()))


def _lines(shape: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each leaf as dotted key, value and place."""
    for key, value in shape.items():
        dotted = f"{path}.{key}" if path else key
        if value.keys() == _LEAF:
            yield dotted, value_words(value["value"]), value["from"]
        else:
            yield from _lines(value, dotted)


def value_words(value: Any) -> str:
    """Return a value in effect as people read it."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list():
            shown = (
                f"{{{value_words(each)}}}" if isinstance(each, dict) else value_words(each) for each in value
            )
            return ", ".join(shown)
        case dict():
            return ", ".join(f"{key}={value_words(each)}" for key, each in value.items())
        case _:
            return str(value)
