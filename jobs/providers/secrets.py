"""Secrets by reference: read when needed, known to the redactor, told apart by keyed fingerprints."""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from jobs.credential import SecretReference
from jobs.errors import OUT_OF_REACH, SecretDelayed, SecretUnreadable
from jobs.providers.secret_files import Held, SecretFiles, read_now
from jobs.secret import Redactor, Secret, Token

SHORTEST_SECRET_KEY = 32
_FINGERPRINT_CHARACTERS = 16


class SecretReader:
    """Reads references against one environment, anew each time.

    `file:` may lie on any disk: see `SecretFiles`, which the readers of a process share as `files`. What
    systemd hands over lies in memory (systemd.exec(5)).
    """

    def __init__(
        self, environ: Mapping[str, str], redactor: Redactor, *, files: SecretFiles | None = None
    ) -> None:
        self._environ = environ
        self._redactor = redactor
        self.files = files or SecretFiles()

    def read(self, reference: SecretReference) -> Secret:
        """Return the secret now, which the redactor learns whole; raises SecretUnreadable as `unlearned`."""
        secret = self.unlearned(reference)
        self._redactor.learn_at(reference, secret)
        return secret

    def unlearned(self, reference: SecretReference) -> Secret:
        """Return the text now: that of a URL, say, of which only parts are secrets. Those are to be learned.

        Raises SecretUnreadable that says which place is empty: SecretDelayed where only its disk is to blame.
        """
        match reference.scheme:
            case "literal":
                return _taken(reference.name)
            case "env":
                return _taken(self._variable(reference.name))
            case "file":
                return _secret_in(Path(reference.name).expanduser(), self.files.read)
            case "systemd":
                directory = self._variable("CREDENTIALS_DIRECTORY")
                return _secret_in(Path(directory) / reference.name, read_now)
            case scheme:
                raise SecretUnreadable(f"{scheme}: is no way to keep a secret; use env:, file: or systemd:")

    def learn(self, secret: Secret, *, at: Hashable | None = None) -> None:
        """Tell the redactor of a secret that came another way; `at` is the place where it stands now."""
        if at is None:
            self._redactor.learn([secret])
        else:
            self._redactor.learn_at(at, secret)

    def _variable(self, name: str) -> str:
        value = self._environ.get(name, "").strip()
        if not value:
            raise SecretUnreadable(f"the variable {name} is not set")
        return value


def _secret_in(path: Path, read: Callable[[Path], Held]) -> Secret:
    try:
        return _taken(read(path).content.decode("utf-8").strip())
    except SecretUnreadable as exc:
        raise type(exc)(f"{path}: {exc}") from exc
    except OSError as exc:
        kind = SecretDelayed if exc.errno in OUT_OF_REACH else SecretUnreadable
        raise kind(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SecretUnreadable(f"{path} is not UTF-8 text") from exc


def _taken(text: str) -> Secret:
    if not text:
        raise SecretUnreadable("it is empty")
    if not text.isprintable() or not text.isascii():
        raise SecretUnreadable("it holds characters that no HTTP header can carry")
    return Secret(text)


class Keyring:
    """The key of fingerprints and of tokens at rest. The first key writes; the others only read."""

    def __init__(self, keys: Sequence[Secret]) -> None:
        if not keys or any(len(key.reveal()) < SHORTEST_SECRET_KEY for key in keys):
            raise SecretUnreadable(
                f"secret_key needs at least {SHORTEST_SECRET_KEY} characters; try `openssl rand -base64 32`"
            )
        roots = [key.reveal().encode() for key in keys]
        self._fingerprinting = [_derive(root, b"promptd fingerprints") for root in roots]
        self._sealing = [_derive(root, b"promptd tokens at rest") for root in roots]

    def fingerprints(self, secret: Secret) -> tuple[str, ...]:
        """Return the keyed fingerprint of a secret, under each key, the current one first.

        64 bits of HMAC-SHA256: enough to see that a secret changed, useless to guess it without the key.
        """
        text = secret.reveal().encode()
        return tuple(
            hmac.new(key, text, hashlib.sha256).hexdigest()[:_FINGERPRINT_CHARACTERS]
            for key in self._fingerprinting
        )

    def seal(self, secret: Secret) -> bytes:
        """Encrypt a token for the database."""
        return self._fernet.encrypt(secret.reveal().encode())

    def unseal(self, sealed: bytes) -> Token:
        """Decrypt a token; raises SecretUnreadable when none of the keys fits."""
        try:
            return Token(self._fernet.decrypt(sealed).decode())
        except InvalidToken as exc:
            raise SecretUnreadable(
                "the stored login was encrypted with another secret_key; put that key back, or log in again"
            ) from exc

    @cached_property
    def _fernet(self) -> MultiFernet:
        return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in self._sealing])


def _derive(key: bytes, use: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=use).derive(key)


def make_secret_key(path: Path) -> None:
    """Write a random key, whole or not at all, for its owner only, unless there is one. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first: its key is the key
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
