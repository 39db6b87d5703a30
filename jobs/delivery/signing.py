"""The keys that sign what webhooks are sent, as Standard Webhooks writes them (standardwebhooks.com)."""

import base64
import binascii
from typing import Final

PREFIX: Final = "whsec_"
SHORTEST: Final = 16
"""Bytes. Standard Webhooks wants 24; a shorter key than this one can be found out."""


def signing_key(text: str) -> bytes:
    """Return the bytes that sign: those behind `whsec_` in base64, or the text as it is.

    Raises ValueError, without the text, where `whsec_` is followed by something else.
    """
    if not text.startswith(PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(
            "begins with whsec_, and what follows is no base64; copy it once more, whole"
        ) from None


def weakness(text: str) -> str | None:
    """Return what is wrong with a signing key, and what would be right; None where it will do."""
    try:
        length = len(signing_key(text))
    except ValueError as exc:
        return str(exc)
    if length >= SHORTEST:
        return None
    return f"has {length} bytes, which can be found out by trying; make one with `openssl rand -base64 24`"
