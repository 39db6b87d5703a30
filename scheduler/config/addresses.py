"""Addresses and other texts that may be secrets: kept elsewhere by reference, or written out and judged."""

import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from jobs.credential import SecretReference
from jobs.delivery.addresses import refusal_in_url, refusal_of_host
from jobs.secret import looks_like_a_key, secrets_in_url
from scheduler.config.delivery_forms import http_url, is_reference
from scheduler.config.gather import Faults
from scheduler.config.places import Places
from scheduler.config.sources import Document
from scheduler.config.texts import moved
from scheduler.config.yaml_tree import KeyPath

_MODE_OF_A_NEW_FILE = 0o644
_TELLING = re.compile(r"(?i)(?:authorization|key|token|secret|password|cookie)$")
_BY_REFERENCE = "write env:NAME, file:PATH or systemd:NAME instead"
_FOR_FEW = "let few read it, such as with `chmod 640`"


@dataclass(slots=True)
class Addresses:
    """Settles what may be a secret; whether others may read a file of the configuration is looked at once.

    `secret_files` are those that hold secrets, with the first place that names each. Nobody looks at them
    here: their disks may hang, and no daemon waits for that to know its configuration.
    """

    places: Places
    faults: Faults
    secret_files: dict[Path, tuple[Document, KeyPath]] = field(default_factory=dict)
    _read_by_others: dict[Document, bool] = field(default_factory=dict)
    _told: set[tuple[Document, KeyPath]] = field(default_factory=set)

    def kept(self, text: str) -> SecretReference:
        """Return where a text is kept: where it says, or right here."""
        with suppress(ValueError):
            return self.places.reference(text)
        return SecretReference("literal", moved(text))

    def url(self, document: Document, path: KeyPath, url: str) -> SecretReference:
        """Return where a URL is kept; warn of one with a secret in it that others may read."""
        if not is_reference(url) and secrets_in_url(url):
            self.warn_readers(document, path)
        return self.look(document, path, self.kept(url))

    def http_url(
        self, document: Document, path: KeyPath, url: str, *, allow_link_local: bool | None = None
    ) -> SecretReference:
        """Return what `url` does; note an address that is never asked, unless it is allowed.

        With None nothing can allow it.
        """
        what = (
            None if allow_link_local or is_reference(url) else refusal_of_host(http_url(url).hostname or "")
        )
        if what is not None:
            mend = "write another URL" if allow_link_local is None else "or add `allow_link_local: true`"
            self.faults.add(document, path, f"leads to an address that is not asked, {what}", mend)
        return self.url(document, path, url)

    def apprise_url(self, document: Document, path: KeyPath, url: str) -> SecretReference:
        """Return what `url` does; note an address that is never asked."""
        what = None if is_reference(url) else refusal_in_url(url)
        if what is not None:
            self.faults.add(
                document, path, f"names an address that is not asked, {what}", "write another URL"
            )
        return self.url(document, path, url)

    def header(
        self, document: Document, path: KeyPath, name: str, value: str, *, by_reference: bool = True
    ) -> None:
        """Warn of a header's secret that others may read; not every header may name another place."""
        if not (by_reference and is_reference(value)) and (_TELLING.search(name) or looks_like_a_key(value)):
            self.warn_readers(document, path, _BY_REFERENCE if by_reference else _FOR_FEW)

    def look(self, document: Document, path: KeyPath, reference: SecretReference) -> SecretReference:
        """Return a reference; note the file that it names for whoever looks at who may read it."""
        if reference.scheme == "file":
            self.secret_files.setdefault(Path(reference.name), (document, path))
        return reference

    def warn_readers(self, document: Document, path: KeyPath, mend: str = _BY_REFERENCE) -> None:
        """Warn of a secret that is written out in a file which everybody on the machine may read.

        Of the jobs of one file the first is told: there may be thousands.
        """
        told = (document, path[-1:]) if path[:1] != ("delivery",) else (document, path)
        if told in self._told:
            return
        self._told.add(told)
        if document not in self._read_by_others:
            self._read_by_others[document] = not self.places.files.alone and _is_read_by_others(document)
        if self._read_by_others[document]:
            text = f"seems to hold a secret, and everybody may read {document.file.name}"
            self.faults.warn(document, path, f"{text}; {mend}")


def _is_read_by_others(document: Document) -> bool:
    """Say whether the file may be read by everybody; one that is still to be written will be."""
    try:
        mode = document.file.stat().st_mode
    except OSError:
        mode = _MODE_OF_A_NEW_FILE
    return bool(mode & stat.S_IROTH)
