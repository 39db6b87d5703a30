"""A secret in memory: a value that can be used, but neither printed nor logged by accident."""

import hmac
import re
from collections.abc import Iterable

_MASK = "[secret]"
_LOOKS_LIKE_A_KEY = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|nvapi|hf|r8|AIza)[-_][\w\-]{12,}|\bAIza[\w\-]{20,}|\beyJ[\w\-]+\.[\w\-]+\.[\w\-]*"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w\-.~+/=]{8,}")
_SHORTEST_REDACTED = 6


class Secret:
    """Holds a secret text; `reveal()` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the one place that sends it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled")


def looks_like_a_key(text: str) -> bool:
    """Say whether a literal is shaped like a real provider key rather than a placeholder."""
    return bool(_LOOKS_LIKE_A_KEY.search(text))


class Redactor:
    """Takes every secret that was ever read in this process out of a text.

    Texts shaped like keys, JSON web tokens and bearer headers go too: a provider may quote a key
    that was never ours, or ours with its middle replaced by stars.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()

    def learn(self, secrets: Iterable[Secret]) -> None:
        """Remember secrets; ones shorter than six characters would mask ordinary words and are not."""
        self._known.update(s.reveal() for s in secrets if len(s.reveal()) >= _SHORTEST_REDACTED)

    def clean(self, text: str) -> str:
        """Return `text` with every secret replaced by `[secret]`."""
        for known in sorted(self._known, key=len, reverse=True):
            text = text.replace(known, _MASK)
        return _BEARER.sub(rf"\1 {_MASK}", _LOOKS_LIKE_A_KEY.sub(_MASK, text))
