"""`promptd provider show`: everything that is known of one provider, and how its credentials stand."""

from typing import Any

import click

from jobs import clock
from jobs.providers.registry import Provider
from jobs.providers.rules import Rule
from scheduler.cli import words
from scheduler.cli.auth import TITLES
from scheduler.cli.auth_shapes import standing_line, standing_shape
from scheduler.cli.context import Context
from scheduler.cli.params import PROVIDER
from scheduler.cli.secrets import look
from scheduler.cli.standing import standings
from scheduler.cli.tables import Facts, Table, View, shown
from scheduler.config.settings import Settings

_ASKED = ("status", "code", "type", "text", "header", "field", "shape")


@click.command("show")
@click.argument("name", type=PROVIDER)
@shown
def show(context: Context, name: str) -> View:
    """Show one provider: its row, its credentials and what closes them, and who uses which model of it."""
    now = clock.utcnow()
    provider = context.registry.provider(context.provider_name(name))
    looked = look(context)
    with context.reading() as connection:
        opened = looked.vault.look(connection, provider, now=now)
        rows = standings(connection, [(provider, opened)], looked, now=now)
    shape = {
        **_row_shape(provider, context),
        "credentials": [standing_shape(row) for row in rows],
        "models": models_of(provider, context.settings),
        "errors": [_rule_shape(rule) for rule in provider.errors],
    }
    used = [(each["model"], ", ".join(each["used_by"])) for each in shape["models"]]
    own = [(rule["class"], _rule_words(rule), rule["name"]) for rule in shape["errors"]]
    tables = (
        Table(TITLES, [standing_line(row, now=now) for row in rows], none="no credentials"),
        Table(("MODEL", "USED BY"), used, none="nothing in the configuration uses it"),
        Table(("CLASS", "OF ANSWERS WITH", "RULE"), own),
    )
    return View(shape, [Facts(_facts(shape)), *tables[:2], *(tables[2:] if own else ())])


def models_of(provider: Provider, settings: Settings) -> list[dict[str, Any]]:
    """Return the models of a provider that the configuration uses, each with its users, in their order."""
    chains = {
        "model and fallback_providers": settings.chain,
        **{f"auxiliary.{name}": task.chain for name, task in settings.auxiliary.items()},
        **{f"job {name}": job.job.chain for name, job in sorted(settings.jobs.items())},
    }
    found: dict[str, list[str]] = {}
    for user, chain in chains.items():
        for target in chain:
            if target.provider == provider.name:
                found.setdefault(target.model, []).append(user)
    return [{"model": model, "used_by": users} for model, users in found.items()]


def _row_shape(provider: Provider, context: Context) -> dict[str, Any]:
    """Return a provider's own row; of its headers only the names, since a value may be a secret."""
    return {
        "name": provider.name,
        "aliases": list(context.registry.aliases(provider.name)),
        "base_url": provider.base_url,
        "api_mode": provider.api_mode,
        "auth": sorted({str(each.kind) for each in provider.credentials}),
        "timeout": provider.timeout.total_seconds(),
        "strategy": provider.strategy,
        "max_concurrency": provider.max_concurrency,
        "aggregator": provider.aggregator,
        "stream": provider.stream,
        "headers": sorted([*provider.headers, *filter(None, [provider.account_header])]),
    }


def _rule_shape(rule: Rule) -> dict[str, Any]:
    asked = rule.model_dump(mode="json", include=set(_ASKED))
    return {
        "name": rule.name,
        "class": rule.error_class,
        "origin": rule.origin,
        "when": {key: value for key, value in asked.items() if value},
    }


def _rule_words(shape: dict[str, Any]) -> str:
    return "; ".join(f"{key} {_value_words(value)}" for key, value in shape["when"].items())


def _value_words(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(name if wanted is True else f"{name}={wanted}" for name, wanted in value.items())
        case list():
            return " or ".join(map(str, value))
        case _:
            return str(value)


def _facts(shape: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        ("provider", shape["name"]),
        ("also called", ", ".join(shape["aliases"])),
        ("base URL", shape["base_url"] or "none yet; set base_url"),
        ("mode", shape["api_mode"]),
        ("auth", " or ".join(shape["auth"])),
        ("timeout", words.length(shape["timeout"])),
        ("strategy", shape["strategy"]),
        ("requests at once", shape["max_concurrency"] or "any number"),
        ("aggregator", "yes" if shape["aggregator"] else ""),
        ("streamed", "yes" if shape["stream"] else ""),
        ("headers", ", ".join(shape["headers"])),
    ]
