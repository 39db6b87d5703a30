"""How much of a text each kind of target takes, and what is said where it was cut."""

from collections.abc import Callable
from typing import Final

from jobs.delivery.message import Message

WEBHOOK_BYTES: Final = 1_000_000
"""Of the whole JSON document. Services that take webhooks often refuse more."""

COMMAND_BYTES: Final = 10_000_000
FILE_BYTES: Final = 100_000_000
APPRISE_BYTES: Final = 10_000_000
"""Of what goes to the child process, which cuts it as the service takes it, and attaches up to 2 MB."""


def utf8_size(text: str) -> int:
    """Return how many bytes a text takes."""
    return len(text.encode())


def fitted(message: Message, most: int, *, size: Callable[[str], int] = utf8_size) -> tuple[str, bool]:
    """Return a message's text as it fits into `most`, and whether it was cut; a cut one says so at its end.

    `size` measures a text, in the unit of `most`, and grows with it.
    """
    body = message.body
    if size(body) <= most:
        return body, False
    note = cut_note(len(body), message.whole_text)
    return beginning(body, most - size(note), size=size) + note, True


def beginning(text: str, most: int, *, size: Callable[[str], int]) -> str:
    """Return a beginning of a text, about the longest, of which the size is at most `most`."""
    kept = text[: max(most, 0)]
    while kept and (taken := size(kept)) > most:
        kept = kept[: min(len(kept) - 1, len(kept) * max(most, 0) // taken)]
    return kept


def cut_note(length: int, whole_text: str, *, is_attached: bool = False) -> str:
    """Return what is said where a text of so many characters was cut; `whole_text` is a command, or empty."""
    attached = " and is attached" if is_attached else ""
    where = f"; `{whole_text}` prints it" if whole_text else ""
    return f"\n\n[cut here: the whole text has {length:,} characters{attached}{where}]\n"
