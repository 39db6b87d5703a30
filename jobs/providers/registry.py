"""Who the providers are: built-in rows, the user's own, inline custom ones; and what each is called."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from importlib import resources
from types import MappingProxyType

import yaml

from jobs.credential import Credential, CredentialKind, OAuthClient, SecretReference, Strategy
from jobs.names import ProviderName, normal_url, slug, spelling
from jobs.providers.rows import CredentialRow, ProviderRow
from jobs.providers.rules import Rule
from jobs.request import ApiMode
from jobs.target import Target

CUSTOM = "custom"
LOGIN_LABEL = "login"
DEFAULT_TIMEOUT = timedelta(seconds=300)


class UnknownProvider(ValueError):
    """A name that no provider has; the text names the nearest ones."""


class ProviderFault(ValueError):
    """Something about one provider cannot be; `path` leads to what is to blame within its row."""

    def __init__(self, path: tuple[str | int, ...], wrong: str, mend: str) -> None:
        super().__init__(wrong)
        self.path, self.wrong, self.mend = path, wrong, mend


@dataclass(frozen=True, slots=True)
class Provider:
    """One account relation with one vendor or server, under its canonical name.

    `output_limit` False: the provider refuses a request that names one, so none is sent.
    """

    name: ProviderName
    base_url: str | None
    api_mode: ApiMode
    credentials: tuple[Credential, ...]
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    account_header: str | None = None
    stream: bool = False
    store: bool | None = None
    output_limit: bool = True
    timeout: timedelta = DEFAULT_TIMEOUT
    strategy: Strategy = Strategy.FILL_FIRST
    max_concurrency: int | None = None
    aggregator: bool = False
    errors: tuple[Rule, ...] = ()


@cache
def builtin_rows() -> Mapping[str, ProviderRow]:
    """Return the rows of `builtin.yaml` by canonical name."""
    text = resources.files("jobs.providers").joinpath("builtin.yaml").read_text("utf-8")
    rows = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    return MappingProxyType({name: ProviderRow.model_validate(row) for name, row in rows.items()})


def _builtin_aliases() -> dict[str, str]:
    return {alias: name for name, row in builtin_rows().items() for alias in row.aliases}


class Registry:
    """All providers of one configuration. Built while configuration is read, then only asked."""

    def __init__(self) -> None:
        self._providers = {name: _provider(name, row) for name, row in builtin_rows().items()}
        self._aliases = {**_builtin_aliases(), **{name: name for name in builtin_rows()}}
        self._taken: dict[str, str] = {}

    def __iter__(self) -> Iterator[Provider]:
        return iter(self._providers.values())

    def canonical(self, text: str) -> ProviderName:
        """Return the canonical name of any spelling or alias; raises UnknownProvider."""
        head, colon, tail = text.partition(":")
        if colon and spelling(head) == CUSTOM:
            name = f"{CUSTOM}:{slug(tail)}"
        else:
            name = self._aliases.get(spelling(text), "")
        if name not in self._providers:
            raise UnknownProvider(self._unknown(text))
        return ProviderName(name)

    def provider(self, name: ProviderName) -> Provider:
        """Return the provider of a canonical name."""
        return self._providers[name]

    def aliases(self, name: ProviderName) -> tuple[str, ...]:
        """Return the other names of a provider, sorted."""
        return tuple(sorted(alias for alias, owner in self._aliases.items() if owner == name != alias))

    def target(self, provider: str, model: str, *, larger_context: bool = False) -> Target:
        """Return a target of a known provider; raises UnknownProvider or ProviderFault."""
        known = self._providers[self.canonical(provider)]
        if known.base_url is None:
            raise ProviderFault(
                ("provider",),
                f"{known.name} has no address of its own",
                f"set providers.{known.name}.base_url",
            )
        if not known.credentials:
            raise ProviderFault(
                ("provider",),
                f"no key is configured for {known.name}",
                f"list a credential under providers.{known.name}.credentials, or say auth: none",
            )
        return Target(known.name, model, known.base_url, known.api_mode, larger_context)

    def add(self, entry: str, row: ProviderRow) -> ProviderName:
        """Take in one entry of a user's `providers:`; raises ProviderFault."""
        name = self._name_of(entry, row)
        if name in self._taken:
            raise ProviderFault(
                (),
                f"{entry!r} and {self._taken[name]!r} are one provider, {name}",
                "keep one of the two entries",
            )
        refined = builtin_rows().get(name) if not row.new else None
        merged = _refine(refined, row) if refined else row
        if merged.base_url is None and refined is None:
            raise ProviderFault((), f"the provider {name} has no base_url", "add base_url: https://…")
        self._providers[name] = _provider(name, merged)
        self._taken[name] = entry
        self._aliases[spelling(entry)] = name
        for alias in row.aliases:
            self._add_alias(spelling(alias), name, row)
        return ProviderName(name)

    def add_custom(
        self, *, name: str | None, base_url: str, key: SecretReference | None, api_mode: ApiMode
    ) -> ProviderName:
        """Take in one inline `provider: custom` target; raises ProviderFault when its name is not its own."""
        url = normal_url(base_url)
        canonical = ProviderName(f"{CUSTOM}:{slug(name or url)}")
        credential = Credential(
            canonical, "key" if key else "none", CredentialKind.KEY if key else CredentialKind.NONE, key
        )
        provider = Provider(canonical, url, api_mode, (credential,))
        known = self._providers.setdefault(canonical, provider)
        if known != provider:
            raise ProviderFault(
                ("name",), f"two different endpoints are called {canonical}", "give each its own name: …"
            )
        return canonical

    def _name_of(self, entry: str, row: ProviderRow) -> str:
        spelled = spelling(entry)
        if spelled == CUSTOM or not slug(spelled) or slug(spelled) != spelled:
            raise ProviderFault((), f"{entry!r} cannot be a provider's name", "use a-z, 0-9 and hyphens")
        if row.new:
            return spelled
        return _builtin_aliases().get(spelled, spelled)

    def _add_alias(self, alias: str, name: str, row: ProviderRow) -> None:
        owner = self._aliases.get(alias)
        owned_by_user = owner in self._taken and owner != name
        if owned_by_user or (owner == alias and owner != name and not row.new):
            raise ProviderFault(
                ("aliases",), f"the alias {alias!r} already means {owner}", "choose another alias"
            )
        self._aliases[alias] = name

    def _unknown(self, text: str) -> str:
        near = get_close_matches(spelling(text), [*self._aliases, *self._providers], n=3, cutoff=0.6)
        names = list(dict.fromkeys(self._aliases.get(n, n) for n in near))
        meant = f"did you mean {' or '.join(names)}?" if names else "see `promptd provider list`"
        return f"no provider is called {text!r}; {meant}"


def _refine(builtin: ProviderRow, row: ProviderRow) -> ProviderRow:
    changes = {key: getattr(row, key) for key in row.model_fields_set}
    changes["errors"] = (*row.errors, *builtin.errors)
    changes["headers"] = {**builtin.headers, **row.headers}
    return builtin.model_copy(update=changes)


def _provider(name: str, row: ProviderRow) -> Provider:
    canonical = ProviderName(name)
    return Provider(
        name=canonical,
        base_url=row.base_url,
        api_mode=row.api_mode or ApiMode.CHAT_COMPLETIONS,
        credentials=_credentials(canonical, row),
        headers=MappingProxyType(dict(row.headers)),
        account_header=row.account_header,
        stream=bool(row.stream),
        store=row.store,
        output_limit=row.output_limit is not False,
        timeout=row.timeout or DEFAULT_TIMEOUT,
        strategy=row.strategy or Strategy.FILL_FIRST,
        max_concurrency=row.max_concurrency,
        aggregator=bool(row.aggregator),
        errors=row.errors,
    )


def _credentials(provider: ProviderName, row: ProviderRow) -> tuple[Credential, ...]:
    if row.auth == "none":
        return (Credential(provider, "none", CredentialKind.NONE),)
    if row.credentials:
        return tuple(_listed(provider, row))
    keys = (
        Credential(provider, variable, CredentialKind.KEY, SecretReference("env", variable), implicit=True)
        for variable in row.key_env
    )
    login = (
        _credential(provider, CredentialRow(label=LOGIN_LABEL, oauth=row.oauth), row, ())
        if row.oauth
        else None
    )
    return (*keys, *([login] if login else []))


def _listed(provider: ProviderName, row: ProviderRow) -> Iterator[Credential]:
    labels = set[str]()
    for number, c in enumerate(row.credentials):
        at = ("credentials", number)
        if c.label in labels:
            raise ProviderFault(
                (*at, "label"), f"two credentials of {provider} share a label", "give each its own"
            )
        labels.add(c.label)
        yield _credential(provider, c, row, at)


def _credential(
    provider: ProviderName, c: CredentialRow, row: ProviderRow, at: tuple[str | int, ...]
) -> Credential:
    """Return the credential of a row that stands at a path of its provider's."""
    if (c.key is None) == (c.oauth is None):
        raise ProviderFault(
            (*at, "key") if c.key is not None else at,
            f"the credential {c.label!r} needs exactly one of key and oauth",
            "key: env:NAME",
        )
    if c.key is not None:
        return Credential(
            provider, c.label, CredentialKind.KEY, SecretReference.parse(c.key), group=c.quota_group
        )
    assert c.oauth is not None
    return Credential(
        provider, c.label, CredentialKind.OAUTH, oauth=_oauth_client(c, row, at), group=c.quota_group
    )


def _oauth_client(c: CredentialRow, row: ProviderRow, at: tuple[str | int, ...]) -> OAuthClient:
    own, default = c.oauth, row.oauth
    assert own is not None
    token_url = own.token_url or (default.token_url if default else None)
    if token_url is None:
        raise ProviderFault(
            (*at, "oauth"), f"the login {c.label!r} has no token_url", "add oauth.token_url: https://…"
        )
    client = OAuthClient(
        token_url, own.client_id, own.scopes, own.device_authorization_url, own.authorization_url
    )
    if default is None:
        return client
    return replace(
        client,
        client_id=client.client_id or default.client_id,
        scopes=client.scopes or default.scopes,
        device_authorization_url=client.device_authorization_url or default.device_authorization_url,
        authorization_url=client.authorization_url or default.authorization_url,
    )
