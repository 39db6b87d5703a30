"""Text that can be written down: JSON, YAML and arguments may hold lone surrogates, UTF-8 may not."""

import re

_ACTING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff]")
"""Controls, and what turns the direction of writing or ends a line (Unicode's Cc, Zl, Zp, some of Cf)."""


def well_formed(text: str) -> str:
    """Return `text` with U+FFFD for every lone surrogate: files, databases and requests take none.

    A pair that a stream has cut in two is one character again.
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_well_formed(text: str) -> bool:
    """Say whether `text` can be encoded as it is."""
    return text.isascii() or text == well_formed(text)


def without_nul(text: str) -> str:
    """Return `text` with U+FFFD for every NUL: PostgreSQL has none, and SQLite measures a text up to it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def readable(text: str) -> str:
    """Return `text` without the characters that would act on a terminal; lines and tabs stay."""
    return _ACTING.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def escaped(json_text: str) -> str:
    """Return JSON in which the characters that would act on a terminal are escaped: it means the same."""
    return _ACTING.sub(_escape, json_text)


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
