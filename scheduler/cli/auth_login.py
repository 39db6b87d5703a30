"""`promptd auth login`: log in with a code for a browser anywhere (RFC 8628), or in a browser here (PKCE)."""

import asyncio
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from jobs.errors import ConfigError, Fault, Unavailable
from scheduler.cli.context import Context, pass_context
from scheduler.cli.edge import ExitCode
from scheduler.cli.job_run import say
from scheduler.cli.logins import chosen_login, keep, sealed_grant, stays_until
from scheduler.cli.params import PROVIDER

if TYPE_CHECKING:
    from jobs.credential import Credential, OAuthClient
    from jobs.providers.device_login import DeviceCode
    from jobs.providers.token_grant import Grant

# ruff: noqa: PLC0415 - encryption, the store and Authlib are loaded when somebody logs in

_CLIENT_ID = {"client_id": "the id under which the provider knows this client"}
_DEVICE = {"device_authorization_url": "the provider's RFC 8628 endpoint: https://…"}
_BROWSER = {"authorization_url": "the page where the provider lets people log in: https://…"}


@click.command("login")
@click.argument("provider", type=PROVIDER)
@click.argument("label", required=False)
@click.option("--browser", is_flag=True, help="Log in with a browser on this machine, without a code.")
@pass_context
def login(context: Context, provider: str, label: str | None, browser: bool) -> int:
    """Log in to PROVIDER: open a page in any browser, enter a code, and the login is kept, encrypted.

    LABEL chooses one of several logins. A running daemon uses the new login at once.
    """
    from scheduler.app import ensure_database, open_vault

    credential = chosen_login(context, provider, label, how="name one of them")
    oauth = credential.oauth
    assert oauth is not None
    here = browser or (oauth.device_authorization_url is None and oauth.authorization_url is not None)
    _require(context, credential, {**_CLIENT_ID, **(_BROWSER if here else _DEVICE)})
    vault = open_vault(context.settings, context.environ, context.redactor)
    ensure_database(context.settings)
    grant = asyncio.run(_unless_given_up(context, oauth, here=here))
    if grant is None:
        say("the login was given up; nothing was stored")
        return ExitCode.INTERRUPTED
    stored = sealed_grant(grant, credential, oauth.client_id or "", vault.keyring)
    keep(context, credential, stored, vault.keyring)
    click.echo(f"logged in: {credential.provider} {credential.label}. {stays_until(stored)}".rstrip())
    return 0


def _require(context: Context, credential: "Credential", needed: Mapping[str, str]) -> None:
    """Raise ConfigError for what a login needs and the configuration does not say."""
    oauth = credential.oauth
    provider = context.registry.provider(credential.provider)
    at = f"providers.{credential.provider}.oauth"
    if len(provider.credentials) > 1:
        at = f"providers.{credential.provider}.credentials, label {credential.label}, oauth"
    source = context.settings.source
    other = "; or take over the vendor's own login: `promptd auth import codex`"
    advice = other if credential.provider == "openai-codex" else ""
    faults = [
        Fault(source, 0, 0, f"{at}.{key}", "a login needs it, and it is not set", f"set it to {what}{advice}")
        for key, what in needed.items()
        if getattr(oauth, key) is None
    ]
    if faults:
        raise ConfigError(faults)


async def _unless_given_up(context: Context, oauth: "OAuthClient", *, here: bool) -> "Grant | None":
    """Return what is granted; None after Ctrl-C, SIGTERM or SIGHUP."""
    asking = asyncio.create_task(_granted(context, oauth, here=here))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asking.cancel)
    try:
        return await asking
    except asyncio.CancelledError:
        return None


async def _granted(context: Context, oauth: "OAuthClient", *, here: bool) -> "Grant":
    from jobs.providers.client import Client

    try:
        from jobs.providers.browser_login import BrowserLogin
        from jobs.providers.device_login import DeviceLogin
    except ModuleNotFoundError as exc:
        raise Unavailable(
            "logging in needs Authlib, which is not installed: pip install 'promptd[oauth]'"
        ) from exc
    client = Client()
    try:
        if here:
            return await BrowserLogin(client, oauth, context.redactor).run(_show_page)
        device = DeviceLogin(client, oauth, context.redactor)
        code = await device.begin()
        _show(code)
        return await device.wait(code)
    finally:
        await client.close()


def _show_page(address: str) -> None:
    click.echo(f"Open this page in a browser on this machine:\n{address}")
    click.echo("Waiting for it, for 10 min at most; Ctrl-C gives up.")


def _show(code: "DeviceCode") -> None:
    from scheduler.cli import words

    click.echo(f"Open {code.verification_uri} in any browser and enter the code {code.user_code}")
    if code.complete_uri:
        click.echo(f"or open {code.complete_uri}")
    click.echo(f"Waiting for it, for {words.length(code.expires_in)} at most; Ctrl-C gives up.")
