"""`promptd auth import`: take over a login that another tool made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs import clock
from jobs.errors import UsageError
from jobs.secret import Secret
from scheduler.cli.context import Context, pass_context
from scheduler.cli.job_run import say
from scheduler.cli.logins import chosen_login, keep, new_login_id

if TYPE_CHECKING:
    from jobs.credential import Credential
    from jobs.store.tokens import SealedTokens

# ruff: noqa: PLC0415 - encryption and the store are loaded when there is a login to keep

_LARGEST = 1024 * 1024
_CLAIMS_OF_VENDOR = "https://api.openai.com/auth"


@click.command("import")
@click.argument("tool", type=click.Choice(["codex"], case_sensitive=False))
@click.option("--file", "path", type=click.Path(path_type=Path), help="Default: ~/.codex/auth.json.")
@click.option("--label", help="The credential to log in; needed where a provider has several logins.")
@pass_context
def import_(context: Context, tool: str, path: Path | None, label: str | None) -> int:
    """Take over the login of TOOL: the Codex command line's ChatGPT login, for openai-codex."""
    from scheduler.app import ensure_database, open_vault

    settings = context.settings
    credential = chosen_login(context, tool, label, how="choose one with --label")
    source = path or Path("~/.codex/auth.json").expanduser()
    vault = open_vault(settings, context.environ, context.redactor)
    login = _login(_read(source), source, credential, vault.keyring.seal)
    ensure_database(settings)
    keep(context, credential, login, vault.keyring)
    say(
        f"logged in: {credential.provider} {credential.label}. The other tool and promptd now share a "
        "single-use refresh token: whoever refreshes first logs the other out. Log in there again to give it "
        "one of its own."
    )
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise UsageError(f"{path} is not a file, or larger than a login file can be")
        document = json.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}; log in with `codex login` first") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{path} is not the JSON that the codex tool writes") from exc
    tokens = document.get("tokens") if isinstance(document, dict) else None
    if not isinstance(tokens, dict) or not tokens.get("access_token"):
        raise UsageError(f"{path} holds no login (no tokens.access_token); log in with `codex login` first")
    return tokens


def _login(tokens: dict[str, Any], source: Path, credential: "Credential", seal: Any) -> "SealedTokens":
    from jobs.providers.token_grant import claims_of, expiry_of, issue_of
    from jobs.store.tokens import SealedTokens

    access, refresh, identity = (
        Secret(_sendable(tokens.get(name), f"tokens.{name}", source) or "")
        for name in ("access_token", "refresh_token", "id_token")
    )
    audience = claims_of(identity).get("aud")
    client_id = audience[0] if isinstance(audience, list) and audience else audience
    account = tokens.get("account_id") or _account_of(claims_of(identity)) or _account_of(claims_of(access))
    return SealedTokens(
        provider=credential.provider,
        label=credential.label,
        login_id=new_login_id(),
        generation=1,
        access_token=seal(access),
        refresh_token=seal(refresh) if refresh.reveal() else None,
        client_id=_sendable(client_id, "the id_token's aud", source),
        account_id=_sendable(account, "the account's id", source),
        issued_at=issue_of(access) or clock.utcnow(),
        expires_at=expiry_of(access),
    )


def _sendable(value: object, what: str, source: Path) -> str | None:
    """Return a part of a login as it can be sent, None where it is left out; raises UsageError."""
    from jobs.providers.token_grant import carriable

    if not value:
        return None
    if not carriable(value):
        raise UsageError(
            f"{source}: {what} is no text that a request can carry; log in again with `codex login`"
        )
    return str(value)


def _account_of(claims: Mapping[str, Any]) -> object:
    """Return the account that a token names; the tool's file has a field for it, which may be empty."""
    named = claims.get(_CLAIMS_OF_VENDOR)
    return named.get("chatgpt_account_id") if isinstance(named, dict) else None
