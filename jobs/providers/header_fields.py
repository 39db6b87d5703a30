"""Header fields of requests: which names and values can be sent, and which names are not anybody's to give.

A check raises ValueError with `what is wrong; what would be right`, and never quotes what it was given.
"""

import re

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OURS = frozenset({"authorization", "connection", "content-length", "host", "transfer-encoding"})


def header_name(name: str) -> str:
    """Return a name that is a token (RFC 9110 section 5.6.2), and none that every request has anyway."""
    if not _TOKEN.fullmatch(name):
        raise ValueError("is not the name of a header; use letters, digits and hyphens, such as X-Title")
    if name.lower() in _OURS:
        raise ValueError("is a header that promptd writes itself; remove it, and give keys as credentials")
    return name


def header_value(value: str) -> str:
    """Return a value of printable ASCII: RFC 9110 section 5.5 has new fields be no more than that."""
    if not (value.isascii() and value.isprintable()):
        raise ValueError(
            "holds characters that no HTTP header can carry; write printable ASCII, without line breaks"
        )
    return value
