"""One spelling per provider: names are settled here, once, when configuration is read."""

import re
import unicodedata
from urllib.parse import urlsplit

_SEPARATORS = re.compile(r"[\s_.]+")
_HYPHENS = re.compile(r"-{2,}")
_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class ProviderName(str):
    """A canonical provider name; the registry makes these, everything inside only passes them on."""

    __slots__ = ()


def spelling(text: str) -> str:
    """Return `text` as provider names are compared: NFKC, trimmed, case folded, hyphenated.

    Aliases are not looked up here: `spelling("Z.AI")` is `z-ai`, which the registry knows as `zai`.
    """
    folded = unicodedata.normalize("NFKC", text).strip().casefold()
    return _HYPHENS.sub("-", _SEPARATORS.sub("-", folded)).strip("-")


def slug(text: str) -> str:
    """Return `text` as the last part of a `custom:<slug>` name: a-z, 0-9 and single hyphens."""
    return _NOT_SLUG.sub("-", spelling(text)).strip("-")


def normal_url(url: str) -> str:
    """Return a base URL with scheme and host in lower case, no default port, no trailing slash.

    Raises ValueError when it is not an absolute http(s) URL, or carries a login, a query or a fragment.
    """
    parts = urlsplit(url.strip())
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("not an absolute http:// or https:// URL")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a base URL carries no login, query or fragment")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname.lower()
    port = "" if parts.port in (None, _DEFAULT_PORTS[scheme]) else f":{parts.port}"
    return f"{scheme}://{host}{port}{parts.path.rstrip('/')}"
