"""What `promptd init` asks somebody at a terminal: whom to ask, which model, which zone, where results go."""

import re
from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from scheduler.cli.init_found import NO_MODEL, Found, usual
from scheduler.cli.init_texts import APPRISE_VARIABLE, Answers, Delivery
from scheduler.config.delivery_forms import http_url
from scheduler.config.places import machine_zone

# ruff: noqa: PLC0415 - the list of providers is read when it is needed

_FIRST = "openai"
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PLACES = ("nowhere", "file", "webhook", "apprise")
_PLACES_SHOWN = """\
Where do results go? They are always recorded, and `promptd run output` prints them.
  nowhere   nothing more
  file      a file a day below the state directory
  webhook   a POST to a URL
  apprise   Slack, Discord, Telegram, e-mail and a hundred more, by an Apprise URL\
"""


def ask(found: Sequence[Found]) -> Answers:
    """Return what somebody wants; raises click.Abort when he wants nothing after all (Ctrl-C, Ctrl-D)."""
    primary = _primary(found)
    zone = click.prompt("Time zone", default=machine_zone().key, value_proc=checked_zone)
    return Answers(
        primary=primary,
        fallbacks=[each for each in found if each.provider != primary.provider],
        timezone=zone,
        delivery=_delivery(),
    )


def _primary(found: Sequence[Found]) -> Found:
    """Ask whom to ask first, and for which of its models."""
    if found:
        click.echo("Who can be asked:")
        for number, each in enumerate(found, start=1):
            click.echo(f"  {number}  {each.provider}, since {each.why}")
        text, default = "Whom to ask first (a number, or another provider's name)", "1"
    else:
        click.echo("No key variable is set, and no local Ollama answers: the key can be set later.")
        text, default = "Which provider", _FIRST
    chosen: Found = click.prompt(text, default=default, value_proc=lambda said: _chosen(said, found))
    known = chosen.model if chosen.model != NO_MODEL else None
    model = click.prompt(f"Model of {chosen.provider}", default=known, value_proc=_model)
    return Found(chosen.provider, model, chosen.why)


def _chosen(said: str, found: Sequence[Found]) -> Found:
    from jobs.providers.registry import Registry, UnknownProvider

    if said.strip().isdecimal() and 1 <= int(said) <= len(found):
        return found[int(said) - 1]
    try:
        name = Registry().canonical(said.strip())
    except UnknownProvider as exc:
        raise click.UsageError(str(exc)) from exc
    if Registry().provider(name).base_url is None:
        raise click.UsageError(f"{name} has no address of its own; write it into promptd.yaml afterwards")
    return next((each for each in found if each.provider == name), None) or usual(name)


def _model(said: str) -> str:
    if not said.strip().isprintable() or not said.strip():
        raise click.UsageError("a model's name has no control characters")
    return said.strip()


def checked_zone(said: str) -> str:
    """Return the name of a time zone; raises click.UsageError for what is none."""
    try:
        return ZoneInfo(said.strip()).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.UsageError(f"{said!r} is no IANA time zone; write one such as Europe/Berlin") from None


def _delivery() -> Delivery | None:
    click.echo(_PLACES_SHOWN)
    kind = click.prompt("Results go to", default=_PLACES[0], type=click.Choice(_PLACES), show_choices=False)
    return PLACES[kind]()


def _webhook() -> Delivery:
    text = "URL of the webhook, or env:NAME where a variable holds it"
    return Delivery.webhook(click.prompt(text, value_proc=_url))


def _url(said: str) -> str:
    said = said.strip()
    if said.startswith("env:") and _VARIABLE.fullmatch(said.removeprefix("env:")):
        return said
    try:
        http_url(said)
    except ValueError as exc:
        raise click.UsageError(f"it {exc}") from None
    return said


def _apprise() -> Delivery:
    text = "Name of the environment variable with the Apprise URL"
    return Delivery.apprise(click.prompt(text, default=APPRISE_VARIABLE, value_proc=_variable))


def _variable(said: str) -> str:
    if not _VARIABLE.fullmatch(said.strip()):
        raise click.UsageError("a variable is named, not the URL itself: it holds passwords")
    return said.strip()


PLACES: dict[str, Callable[[], Delivery | None]] = {
    "nowhere": lambda: None,
    "file": Delivery.file,
    "webhook": _webhook,
    "apprise": _apprise,
}
"""Where results can go, and what is asked then."""
