"""`promptd config explain KEY`: what a key means, what may be written, and what is in effect, and why."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from jobs.errors import ConfigError
from jobs.text import readable
from scheduler.cli.config import value_words
from scheduler.cli.context import Context
from scheduler.cli.params import TEXT
from scheduler.cli.tables import Block, Facts, Table, View, shown
from scheduler.config.effective import effective
from scheduler.config.explained import Explained, InEffect, in_effect, matching, named

_TITLES = ("WHERE", "VALUE", "FROM")


@click.command("explain")
@click.argument("key", type=TEXT)
@shown
def explain(context: Context, key: str) -> View:
    """Explain KEY, such as `timeout`, `limits.drain_timeout` or `jobs.morning-digest.catch_up`.

    A word that stands in several places is explained for each. Without a configuration that can be read, what
    is in effect is left out.
    """
    keys = matching(key)
    found = _effective(context)
    values = {each.key: list(in_effect(each.key, found, only=named(key))) for each in keys}
    shape = [{**asdict(each), "in_effect": [_shape(v) for v in values[each.key]]} for each in keys]
    return View(shape, [block for each in keys for block in _blocks(each, values[each.key])])


def _effective(context: Context) -> dict[str, Any]:
    try:
        return effective(context.loaded)
    except ConfigError as exc:
        print(readable(f"promptd: what is in effect is left out: {exc.faults[0]}"), file=sys.stderr)
        return {}


def _shape(value: InEffect) -> dict[str, Any]:
    return {"at": value.at, "value": value.value, "from": value.origin}


def _blocks(key: Explained, values: Sequence[InEffect]) -> list[Block]:
    facts = [
        ("key", key.key),
        ("meaning", key.meaning),
        ("type", key.type),
        ("default", key.default),
    ]
    lines = [(each.at, value_words(each.value), each.origin) for each in values]
    return [Facts(facts), *([Table(_TITLES, lines)] if lines else [])]
