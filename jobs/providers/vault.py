"""The credentials of a provider as they can be used at this moment: secrets read, logins opened."""

from contextlib import suppress
from datetime import datetime

from sqlalchemy import Connection

from jobs.credential import Credential, CredentialKind, Readable, SecretReference, Unreadable
from jobs.errors import SecretUnreadable
from jobs.providers.login_times import is_stale
from jobs.providers.registry import Provider, Registry
from jobs.providers.secrets import Keyring, SecretReader
from jobs.secret import Secret
from jobs.store import credentials as credential_verbs
from jobs.store import tokens
from jobs.store.tokens import SealedTokens

_NO_SECRET = "keyless"


class Vault:
    """Opens credentials. Used inside a verb: it reads logins on the verb's own connection."""

    def __init__(self, reader: SecretReader, keyring: Keyring) -> None:
        self._reader = reader
        self.keyring = keyring
        self._fingerprints: dict[SecretReference, tuple[Secret, tuple[str, ...]]] = {}
        self._refresh_known: dict[tuple[str, str], bytes] = {}

    def learn_all(self, connection: Connection, registry: Registry) -> None:
        """Tell the redactor of every key that is configured, used or not, and of every login that is stored.

        Before any work: a job's command may print them. What cannot be read is passed over; whoever needs it
        says so.
        """
        for provider in registry:
            for credential in provider.credentials:
                if credential.reference is not None:
                    with suppress(SecretUnreadable):
                        self._reader.read(credential.reference)
        for sealed in tokens.every(connection):
            with suppress(SecretUnreadable):
                self._access_of(sealed)

    def open(
        self, connection: Connection, provider: Provider, *, now: datetime
    ) -> list[Readable | Unreadable]:
        """Return what `look` returns, and keep the credentials' rows in step with it."""
        opened = self.look(connection, provider, now=now)
        for each in opened:
            fingerprints = each.fingerprints if isinstance(each, Readable) else ()
            credential_verbs.ensure(connection, each.credential, fingerprints, now=now)
        return opened

    def look(
        self, connection: Connection, provider: Provider, *, now: datetime
    ) -> list[Readable | Unreadable]:
        """Return a provider's credentials in their order; writes nothing.

        Of references that lead to one secret the first is the credential. A variable that is not set is
        left out where another of the provider's credentials can be read.
        """
        found = [self._open_one(connection, credential, now) for credential in provider.credentials]
        any_readable = any(isinstance(each, Readable) for each in found)
        seen: list[Readable | Unreadable] = []
        secrets: set[str] = set()
        for each in found:
            if isinstance(each, Unreadable):
                if any_readable and each.credential.implicit:
                    continue
            elif each.fingerprint in secrets:
                continue
            else:
                secrets.add(each.fingerprint)
            seen.append(each)
        return seen

    def _open_one(
        self, connection: Connection, credential: Credential, now: datetime
    ) -> Readable | Unreadable:
        try:
            match credential.kind:
                case CredentialKind.NONE:
                    return Readable(credential, None, (_NO_SECRET,))
                case CredentialKind.KEY:
                    assert credential.reference is not None
                    secret = self._reader.read(credential.reference)
                    return Readable(credential, secret, self._fingerprints_of(credential.reference, secret))
                case CredentialKind.OAUTH:
                    return self._open_login(connection, credential, now)
        except SecretUnreadable as exc:
            return Unreadable(credential, str(exc))

    def _open_login(
        self, connection: Connection, credential: Credential, now: datetime
    ) -> Readable | Unreadable:
        sealed = tokens.load(connection, credential.provider, credential.label)
        if sealed is None:
            return Unreadable(credential, f"nobody has logged in; try {way_in(credential)}")
        secret = self._access_of(sealed)
        return Readable(
            credential,
            secret,
            (sealed.login_id,),
            account_id=sealed.account_id,
            stale=is_stale(sealed, now=now),
            valid=sealed.expires_at is None or sealed.expires_at > now,
            generation=sealed.generation,
        )

    def _access_of(self, sealed: SealedTokens) -> Secret:
        """Return a login's access token; the redactor then knows both tokens, until others stand there."""
        login, refresh = (sealed.provider, sealed.label), sealed.refresh_token
        if refresh is not None and self._refresh_known.get(login) != refresh:
            with suppress(SecretUnreadable):
                self._reader.learn(self.keyring.unseal(refresh), at=(*login, "refresh"))
            self._refresh_known[login] = refresh
        access = self.keyring.unseal(sealed.access_token)
        self._reader.learn(access, at=(*login, "access"))
        return access

    def _fingerprints_of(self, reference: SecretReference, secret: Secret) -> tuple[str, ...]:
        known = self._fingerprints.get(reference)
        if known is None or known[0] != secret:
            known = self._fingerprints[reference] = (secret, self.keyring.fingerprints(secret))
        return known[1]


def way_in(credential: Credential) -> str:
    """Return the command that makes a login for a credential, as people are told it."""
    oauth = credential.oauth
    has_own = oauth is not None and (oauth.device_authorization_url or oauth.authorization_url)
    if credential.provider == "openai-codex" and not has_own:
        return "`promptd auth import codex`"
    return f"`promptd auth login {credential.provider} {credential.label}`"
