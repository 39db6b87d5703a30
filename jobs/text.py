"""Text that can be written down: JSON, YAML and arguments may hold lone surrogates, UTF-8 may not."""


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
