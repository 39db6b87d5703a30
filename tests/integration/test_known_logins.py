"""What the redactor knows of logins that are stored: the tokens in force, always."""

from datetime import timedelta

from sqlalchemy import Connection
from support.ledger import NOW

from jobs.credential import Credential, CredentialKind
from jobs.names import ProviderName
from jobs.providers.registry import Provider, Registry
from jobs.providers.secrets import Keyring, SecretReader
from jobs.providers.vault import Vault
from jobs.request import ApiMode
from jobs.secret import MOST_TOKENS, Redactor, Secret
from jobs.store import credentials, tokens
from jobs.store.tokens import SealedTokens

PROVIDER = ProviderName("openai-codex")
KEYRING = Keyring([Secret("k" * 32)])


def store(db: Connection, label: str, *, access: str, refresh: str) -> None:
    """Store a login in place of the one of this label."""
    credentials.ensure(db, Credential(PROVIDER, label, CredentialKind.OAUTH), (label,), now=NOW)
    sealed = SealedTokens(
        provider=PROVIDER,
        label=label,
        login_id=label,
        generation=0,
        access_token=KEYRING.seal(Secret(access)),
        refresh_token=KEYRING.seal(Secret(refresh)),
        client_id="app",
        account_id=None,
        issued_at=NOW,
        expires_at=NOW + timedelta(days=10),
    )
    tokens.save_login(db, sealed)


def unmasked(redactor: Redactor, secrets: list[str]) -> list[str]:
    """Return the secrets that a text would still show."""
    return [each for each in secrets if redactor.own(f"said {each}!") != "said [secret]!"]


def test_every_login_is_known_however_many_are_stored(db: Connection) -> None:
    redactor, labels = Redactor(), [f"login-{number:03}" for number in range(MOST_TOKENS * 3 // 4)]
    for label in labels:
        store(db, label, access=f"access-of-{label}", refresh=f"refresh-of-{label}")

    Vault(SecretReader({}, redactor), KEYRING).learn_all(db, Registry())

    tokens_in_force = [f"{which}-of-{label}" for label in labels for which in ("access", "refresh")]
    assert unmasked(redactor, tokens_in_force) == []


def test_a_login_is_known_while_it_stands_however_often_another_one_is_refreshed(db: Connection) -> None:
    """Whether a run looks at it or none does."""
    redactor = Redactor()
    vault = Vault(SecretReader({}, redactor), KEYRING)
    logins = [Credential(PROVIDER, label, CredentialKind.OAUTH) for label in ("busy", "slow")]
    looked_at = Provider(PROVIDER, None, ApiMode.CHAT_COMPLETIONS, tuple(logins))
    store(db, "slow", access="access-of-slow", refresh="refresh-of-slow")
    store(db, "idle", access="access-of-idle", refresh="refresh-of-idle")
    vault.learn_all(db, Registry())

    for hour in range(MOST_TOKENS):
        store(db, "busy", access=f"access-of-hour-{hour}", refresh=f"refresh-of-hour-{hour}")
        vault.look(db, looked_at, now=NOW)

    newest = [f"access-of-hour-{MOST_TOKENS - 1}", f"refresh-of-hour-{MOST_TOKENS - 1}"]
    slow = ["access-of-slow", "refresh-of-slow", "access-of-idle", "refresh-of-idle"]
    assert unmasked(redactor, [*newest, *slow]) == []
