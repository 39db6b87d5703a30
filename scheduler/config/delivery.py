"""Delivery targets and alerts settled: one value per target, with only what belongs to its kind."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from jobs.alert import AlertPolicy
from jobs.credential import SecretReference
from jobs.definition import Command
from jobs.delivery.target import (
    DEFAULT_TIMEOUT,
    AppriseTarget,
    CommandTarget,
    DeliveryTarget,
    FileTarget,
    WebhookTarget,
)
from scheduler.config.addresses import Addresses
from scheduler.config.gather import Faults
from scheduler.config.references import check_targets
from scheduler.config.schema import AlertsSection, DeliveryRow
from scheduler.config.sources import Document
from scheduler.config.texts import moved
from scheduler.config.yaml_tree import KeyPath

_KINDS = ("apprise", "webhook", "file", "command")
_OF_KIND: Mapping[str, str] = MappingProxyType(
    {"headers": "webhook", "secret": "webhook", "allow_link_local": "webhook", "shell": "command"}
)
"""Keys that only one kind of target has."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Makes delivery targets of the rows of the main file; notes what does not fit together."""

    document: Document
    addresses: Addresses
    faults: Faults
    state_dir: Path

    def targets(self, rows: Mapping[str, DeliveryRow]) -> Mapping[str, DeliveryTarget]:
        """Return the sound targets by name; the others leave faults."""
        made = {}
        for name, row in rows.items():
            path: KeyPath = ("delivery", name)
            if self._is_sound(path, row):
                made[moved(name)] = self._target(path, moved(name), row)
        return MappingProxyType(made)

    def names(self) -> frozenset[str]:
        """Return the names of all targets that are written, sound or not."""
        written = self.document.data.get("delivery")
        return frozenset(map(str, written)) if isinstance(written, dict) else frozenset()

    def alerts(self, section: AlertsSection) -> AlertPolicy:
        """Return who is told of alerts, and when; note names of targets that are not there."""
        check_targets(self.document, ("alerts", "to"), section.to, self.names(), self.faults)
        if section.model_fields_set and not section.to and not self.faults.under(self.document, ("alerts",)):
            self.faults.warn(self.document, ("alerts",), "tell nobody without `to: [TARGET]`")
        given = {key: value for key, value in section if value is not None}
        return AlertPolicy(**{**given, "to": tuple(map(moved, section.to))})

    def _is_sound(self, path: KeyPath, row: DeliveryRow) -> bool:
        if self.faults.under(self.document, path):
            return False
        kinds = [kind for kind in _KINDS if getattr(row, kind) is not None]
        if not kinds:
            known = f"{', '.join(_KINDS[:-1])} and {_KINDS[-1]}"
            self.faults.add(self.document, path, "does not say where to", f"add one of {known}", key=True)
        for other in kinds[1:]:
            wrong, mend = f"is a second way beside {kinds[0]}", "keep one, or make two targets of them"
            self.faults.add(self.document, (*path, other), wrong, mend, key=True)
        for key in sorted(row.model_fields_set & _OF_KIND.keys()):
            if kinds and _OF_KIND[key] not in kinds:
                wrong = f"belongs to a target with `{_OF_KIND[key]}`"
                self.faults.add(self.document, (*path, key), wrong, "remove it", key=True)
        self._check_headers((*path, "headers"), row)
        return not self.faults.under(self.document, path)

    def _check_headers(self, path: KeyPath, row: DeliveryRow) -> None:
        """Note a header that is there twice: case makes no difference (RFC 9110 section 5.1)."""
        seen = set()
        for name in row.headers:
            if name.lower() in seen:
                self.faults.add(
                    self.document, (*path, name), "is listed twice", "keep one of the two", key=True
                )
            seen.add(name.lower())

    def _target(self, path: KeyPath, name: str, row: DeliveryRow) -> DeliveryTarget:
        timeout = row.timeout or DEFAULT_TIMEOUT
        if row.apprise is not None:
            url = self.addresses.apprise_url(self.document, (*path, "apprise"), row.apprise)
            return AppriseTarget(name, url, timeout)
        if row.webhook is not None:
            return self._webhook(path, name, row, row.webhook)
        if row.file is not None:
            return FileTarget(name, self._template(row.file), self.state_dir, timeout)
        words = tuple(map(moved, row.command or ()))
        if not row.shell:
            self._check_program((*path, "command"), words)
        return CommandTarget(name, Command(words, row.shell, timeout=timeout))

    def _webhook(self, path: KeyPath, name: str, row: DeliveryRow, url: str) -> WebhookTarget:
        allows, kept = row.allow_link_local, self.addresses.kept
        for header, value in row.headers.items():
            self.addresses.header(self.document, (*path, "headers", header), header, value)
            self.addresses.look(self.document, (*path, "headers", header), kept(value))
        return WebhookTarget(
            name,
            self.addresses.http_url(self.document, (*path, "webhook"), url, allow_link_local=allows),
            headers=MappingProxyType({moved(key): kept(value) for key, value in row.headers.items()}),
            secret=self._secret(path, row.secret),
            allow_link_local=allows,
            timeout=row.timeout or DEFAULT_TIMEOUT,
        )

    def _secret(self, path: KeyPath, secret: str | None) -> SecretReference | None:
        if secret is None:
            return None
        return self.addresses.look(self.document, (*path, "secret"), self.addresses.kept(secret))

    def _template(self, written: str) -> str:
        """Return a file's name with `~` as the user's home; a relative name stays one."""
        head, slash, tail = moved(written).partition("/")
        home = str(self.addresses.places.absolute("~")).replace("{", "{{").replace("}", "}}")
        return f"{home}{slash}{tail}" if head == "~" else moved(written)

    def _check_program(self, path: KeyPath, words: tuple[str, ...]) -> None:
        places = self.addresses.places
        if (
            not places.files.alone
            and shutil.which(words[0], path=places.environ.get("PATH", os.defpath)) is None
        ):
            self.faults.warn(self.document, path, "names a program that is not found here, or not executable")
