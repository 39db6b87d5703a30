"""`promptd provider list`: who can be asked, under which names, with which credentials."""

from collections.abc import Sequence
from typing import Any

import click

from jobs import clock
from jobs.credential import Readable, Unreadable
from jobs.providers.registry import Provider
from scheduler.cli.context import Context
from scheduler.cli.secrets import look, used_providers
from scheduler.cli.tables import Table, View, shown

_TITLES = ("PROVIDER", "USED", "MODE", "BASE URL", "CREDENTIALS", "ALIASES")


@click.command("list")
@click.option("--used", "only_used", is_flag=True, help="Only those that the configuration names.")
@shown
def list_(context: Context, only_used: bool) -> View:
    """List providers and their credentials."""
    now, vault, used = clock.utcnow(), look(context).vault, used_providers(context)
    with context.reading() as connection:
        found = [
            (provider, vault.look(connection, provider, now=now))
            for provider in sorted(context.registry, key=lambda each: each.name)
            if provider.name in used or not only_used
        ]
    shapes = [
        provider_shape(
            provider, opened, used=provider.name in used, aliases=context.registry.aliases(provider.name)
        )
        for provider, opened in found
    ]
    return View(shapes, [Table(_TITLES, [_line(each) for each in shapes], none="no providers")])


def provider_shape(
    provider: Provider, opened: Sequence[Readable | Unreadable], *, used: bool, aliases: Sequence[str]
) -> dict[str, Any]:
    """Return a provider as `provider list --json` prints it; `readable`: a request could be signed now."""
    return {
        "name": provider.name,
        "aliases": list(aliases),
        "base_url": provider.base_url,
        "api_mode": provider.api_mode,
        "used": used,
        "readable": any(isinstance(each, Readable) for each in opened),
        "credentials": [_credential_shape(each) for each in opened],
    }


def _credential_shape(opened: Readable | Unreadable) -> dict[str, Any]:
    credential = opened.credential
    return {
        "label": credential.label,
        "kind": credential.kind,
        "source": credential.source,
        "quota_group": credential.group,
        "readable": isinstance(opened, Readable),
    }


def _line(shape: dict[str, Any]) -> tuple[object, ...]:
    credentials = (_credential_words(each) for each in shape["credentials"])
    return (
        shape["name"],
        "yes" if shape["used"] else "",
        shape["api_mode"],
        shape["base_url"],
        ", ".join(credentials),
        ", ".join(shape["aliases"]),
    )


def _credential_words(shape: dict[str, Any]) -> str:
    source = shape["source"] if shape["source"] != shape["label"] else ""
    said = " ".join(part for part in (shape["label"], f"({source})" if source else "") if part)
    return said if shape["readable"] else f"{said} unreadable"
