"""Finds which of many known texts stand in another one: whole, begun, or ended."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

SHORTEST = 6
_STEP = 4  # characters that are looked up first: no beginning or ending that counts is shorter
_FEW = 64  # texts that are sooner sought one by one


class SecretIndex:
    """What is to be found, each at least six characters long; it does not change.

    What a search costs grows with the text that is searched, hardly with how many texts are known. `phrases`
    are found whole only: their first or last words are anybody's.
    """

    def __init__(self, texts: Iterable[str] = (), phrases: Iterable[str] = ()) -> None:
        self.texts, self.phrases = frozenset(texts), frozenset(phrases)
        self._all = _longest_first(self.texts | self.phrases)
        self._lengths: dict[str, list[int]] = {}
        for known in self._all:
            lengths = self._lengths.setdefault(known[:SHORTEST], [])
            if len(known) not in lengths[-1:]:
                lengths.append(len(known))
        self._longest = max(map(len, self.texts), default=0)
        self._onwards = sorted(self.texts)
        self._backwards = sorted(known[::-1] for known in self.texts)
        self._beginnings = frozenset(known[:_STEP] for known in self.texts)

    def whole(self, text: str) -> Sequence[str]:
        """Return all that stands in a text, the longest first."""
        if len(self._all) <= _FEW:
            return [known for known in self._all if known in text]
        known, lengths = self.texts | self.phrases, self._lengths
        met = {
            found
            for at in range(len(text) - SHORTEST + 1)
            if (piece := text[at : at + SHORTEST]) in lengths
            for length in lengths[piece]
            if (found := text[at : at + length]) in known
        }
        return _longest_first(met)

    def begun(self, text: str, end: int, *, after: int = 0, shortest: int = SHORTEST) -> int:
        """Return the first place from `after` on at which something begins that `end` cuts off; else `end`.

        At least `shortest` characters of it stand before `end`; `shortest` is 4 or more.
        """
        for at in range(max(after, end - self._longest), end - shortest + 1):
            if text[at : at + _STEP] in self._beginnings and _leads(self._onwards, text[at:end]):
                return at
        return end

    def ends_with(self, tail: str) -> bool:
        """Say whether something ends with these characters, which are not more than it has itself."""
        return len(tail) <= self._longest and _leads(self._backwards, tail[::-1])


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(sorted(texts), key=len, reverse=True)


def _leads(ordered: Sequence[str], text: str) -> bool:
    """Say whether one of some texts, which are in order, begins with this one."""
    at = bisect_left(ordered, text)
    return at < len(ordered) and ordered[at].startswith(text)
