"""The shape of a row of `builtin.yaml`, which is the shape of `providers:` in a user's configuration."""

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

from jobs.credential import SecretReference, Strategy
from jobs.names import normal_url
from jobs.providers.header_fields import header_name, header_value
from jobs.providers.rules import Rule
from jobs.request import ApiMode

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_LONGEST = timedelta(days=366)


def duration(text: object) -> timedelta:
    """Read `90s`, `30m`, `2h`, `1d`, `1h30m`; raises ValueError for anything else, nothing or too much."""
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        raise ValueError("a duration such as 90s, 30m, 2h, 1d or 1h30m is wanted")
    days, hours, minutes, secs = (min(int(part or 0), 10**9) for part in match.groups())
    length = timedelta(days=min(days, 10**6), hours=hours, minutes=minutes, seconds=secs)
    if not timedelta(0) < length <= _LONGEST:
        raise ValueError("a duration is longer than nothing and at most 366d")
    return length


def _reference(text: str) -> str:
    return str(SecretReference.parse(text))


def _http_url(text: str) -> str:
    normal_url(text.partition("?")[0])
    return text


Duration = Annotated[timedelta, BeforeValidator(duration)]
Reference = Annotated[str, AfterValidator(_reference)]
BaseUrl = Annotated[str, AfterValidator(normal_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
HeaderName = Annotated[str, AfterValidator(header_name)]
HeaderValue = Annotated[str, AfterValidator(header_value)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OAuthRow(_Row):
    """An OAuth login: what RFC 6749 section 6 needs to refresh it."""

    token_url: HttpUrl | None = None
    client_id: str | None = None
    scopes: tuple[str, ...] = ()
    device_authorization_url: HttpUrl | None = None
    authorization_url: HttpUrl | None = None


class CredentialRow(_Row):
    """One credential of a provider: a key reference, or an OAuth login."""

    label: Label
    key: Reference | None = None
    oauth: OAuthRow | None = None
    quota_group: Label | None = None


class ProviderRow(_Row):
    """A provider; a field that is left out keeps the built-in value, or the default."""

    base_url: BaseUrl | None = None
    api_mode: ApiMode | None = None
    auth: Literal["key", "oauth", "none"] | None = None
    key_env: tuple[str, ...] = ()
    oauth: OAuthRow | None = None
    aliases: tuple[str, ...] = ()
    aggregator: bool | None = None
    headers: dict[HeaderName, HeaderValue] = {}
    account_header: HeaderName | None = None
    stream: bool | None = None
    store: bool | None = None
    output_limit: bool | None = None
    strategy: Strategy | None = None
    max_concurrency: Annotated[int, Strict(), Field(ge=1, le=10_000)] | None = None
    timeout: Duration | None = None
    credentials: tuple[CredentialRow, ...] = ()
    errors: tuple[Rule, ...] = ()
    new: bool = False
