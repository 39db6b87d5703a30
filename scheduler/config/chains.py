"""Providers and targets of one configuration: the registry filled, every target settled to one value."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from jobs.credential import SecretReference
from jobs.names import slug, spelling
from jobs.providers.registry import CUSTOM, ProviderFault, Registry, UnknownProvider
from jobs.providers.rows import CredentialRow, ProviderRow
from jobs.request import ApiMode
from jobs.secret import is_placeholder, looks_like_a_key
from jobs.target import Target
from scheduler.config.addresses import Addresses
from scheduler.config.gather import Faults
from scheduler.config.places import Places
from scheduler.config.schema import BROKEN, AuxiliaryRow, CustomKeys, JobKeys, TargetRow
from scheduler.config.sources import Document
from scheduler.config.yaml_tree import KeyPath

Written = tuple[KeyPath, TargetRow]
_KEYS_OF_CUSTOM = tuple(CustomKeys.model_fields)
_KEY_FIELDS = ("api_key", "api_key_env", "key_env")


@dataclass(slots=True)
class Chains:
    """Fills a registry, and settles targets; notes a fault once and at its place."""

    places: Places
    faults: Faults
    addresses: Addresses
    registry: Registry = field(default_factory=Registry)
    _broken: set[str] = field(default_factory=set)
    _custom: dict[tuple[Document, KeyPath], str] = field(default_factory=dict)

    def add_providers(self, document: Document, rows: dict[str, ProviderRow]) -> None:
        """Take in the entries of `providers:`; of one with faults only its names are remembered."""
        written = document.data.get("providers")
        for entry in written if isinstance(written, dict) else ():
            path: KeyPath = ("providers", entry)
            row = rows.get(entry)
            if row is None or self.faults.under(document, path):
                self._break(entry, row)
                continue
            try:
                self.registry.add(entry, self._with_absolute_files(document, path, row))
            except ProviderFault as exc:
                self._break(entry, row)
                self.faults.add(document, (*path, *exc.path), exc.wrong, exc.mend, key=True)

    def add_custom(self, document: Document, written: Iterable[Written]) -> None:
        """Take in the inline custom targets among these; before any target is settled."""
        for path, row in written:
            if row is BROKEN:
                continue
            if spelling(row.provider) != CUSTOM:
                self._refuse_custom_keys(document, path, row)
            elif row.base_url is None:
                self.faults.add(document, (*path, "base_url"), "is missing", "add `base_url: http://…`")
            else:
                self._add_endpoint(document, path, row, row.base_url)

    def settled(self, document: Document, written: Iterable[Written]) -> tuple[Target, ...] | None:
        """Return the targets, each once; None when one of them has faults."""
        targets = [self._target(document, path, row) for path, row in written]
        sound = [target for target in targets if target is not None]
        return tuple(dict.fromkeys(sound)) if len(sound) == len(targets) else None

    def _target(self, document: Document, path: KeyPath, row: TargetRow) -> Target | None:
        if row is BROKEN or self.faults.under(document, path):
            return None
        name = self._custom.get((document, path), row.provider)
        if spelling(name) in self._broken:
            return None
        try:
            return self.registry.target(name, row.model, larger_context=row.larger_context)
        except UnknownProvider as exc:
            wrong, _, mend = str(exc).partition("; ")
        except ProviderFault as exc:
            if self.registry.canonical(name) in self._broken:
                return None
            wrong, mend = exc.wrong, exc.mend
        own = (*path, "provider")
        self.faults.add(document, own if document.holds(own) else path, wrong, mend)
        return None

    def _break(self, entry: str, row: ProviderRow | None) -> None:
        names = {spelling(entry), *(spelling(alias) for alias in (row.aliases if row else ()))}
        with suppress(UnknownProvider):
            names.add(self.registry.canonical(entry))
        self._broken |= names

    def _with_absolute_files(self, document: Document, path: KeyPath, row: ProviderRow) -> ProviderRow:
        """Return a provider's row fit for any directory; warn of what of its secrets others may read."""
        for name, value in row.headers.items():
            place = (*path, "headers", name)
            self.addresses.header(document, place, name, value, by_reference=False)
        if not row.credentials:
            return row
        made = [
            self._with_absolute_file(document, (*path, "credentials", number), each)
            for number, each in enumerate(row.credentials)
        ]
        return row.model_copy(update={"credentials": tuple(made)})

    def _with_absolute_file(self, document: Document, path: KeyPath, row: CredentialRow) -> CredentialRow:
        if row.key is None:
            return row
        reference = self.addresses.look(document, (*path, "key"), self.places.reference(row.key))
        return row.model_copy(update={"key": str(reference)})

    def _refuse_custom_keys(self, document: Document, path: KeyPath, row: TargetRow) -> None:
        for key in _KEYS_OF_CUSTOM:
            if getattr(row, key) is not None:
                wrong = "belongs to the provider, not to a target"
                mend = f"put it under providers.{row.provider}, or write `provider: custom` and a `name`"
                self.faults.add(document, (*path, key), wrong, mend, key=True)

    def _add_endpoint(self, document: Document, path: KeyPath, row: TargetRow, base_url: str) -> None:
        if row.name is not None and not slug(row.name):
            self.faults.add(
                document, (*path, "name"), "cannot be a provider's name", "use a-z, 0-9 and hyphens"
            )
            return
        key = self._key(document, path, row)
        mode = row.api_mode or ApiMode.CHAT_COMPLETIONS
        try:
            name = self.registry.add_custom(name=row.name, base_url=base_url, key=key, api_mode=mode)
        except ProviderFault as exc:
            self.faults.add(document, (*path, *exc.path), exc.wrong, exc.mend)
        else:
            self._custom[(document, path)] = name

    def _key(self, document: Document, path: KeyPath, row: TargetRow) -> SecretReference | None:
        given = [key for key in _KEY_FIELDS if getattr(row, key) is not None]
        for key in given[1:]:
            self.faults.add(
                document, (*path, key), f"says again what {given[0]} says", "keep one of the two", key=True
            )
        variable = row.api_key_env or row.key_env
        if row.api_key is None:
            return SecretReference("env", variable) if variable else None
        place = (*path, "api_key")
        with suppress(ValueError):
            return self.addresses.look(document, place, self.places.reference(row.api_key))
        if looks_like_a_key(row.api_key):
            self.faults.warn(document, place, "looks like a real key; write api_key_env: NAME instead")
        elif not is_placeholder(row.api_key.strip()):
            self.addresses.warn_readers(document, place)
        return SecretReference("literal", row.api_key.strip())


def written_in(row: JobKeys, path: KeyPath) -> Iterator[Written]:
    """Yield the targets that a job, or `defaults`, writes out."""
    if row.model is not None:
        yield (*path, "model"), row.model
    for number, target in enumerate(row.fallback or ()):
        yield (*path, "fallback", number), target


def written_for(row: AuxiliaryRow, path: KeyPath) -> Iterator[Written]:
    """Yield the targets that an auxiliary task writes out: its own, then its fallbacks."""
    if row.provider is not None and row.model is not None:
        own = {key: getattr(row, key) for key in (*CustomKeys.model_fields, "provider", "model")}
        yield path, TargetRow.model_construct(**own)
    for number, target in enumerate(row.fallback_chain):
        yield (*path, "fallback_chain", number), target
