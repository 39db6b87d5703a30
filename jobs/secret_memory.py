"""Which secrets are known, for how long, and what finds all of them in a text."""

from collections import Counter
from collections.abc import Hashable, Mapping

from jobs.secret_index import SecretIndex
from jobs.secret_spellings import encoded, written

_FEW = 8  # are soon indexed, however many more are known
_RATIO = 8  # an index is so many times as large as the next one


class SecretMemory:
    """Texts of secrets; `is_phrase` says of one that nothing but the whole of it is a secret.

    What stands at a place is known as long as it stands there, and so are the latest `most_former` that stood
    there before it; of all others the latest `most_others`. Whoever changes the memory keeps others away.
    """

    def __init__(self, *, most_former: int = 0, most_others: int = 0) -> None:
        self._most_former, self._most_others = most_former, most_others
        self._texts: dict[str, bool] = {}
        self._at: dict[Hashable, tuple[str, ...]] = {}
        self._uses = Counter[str]()
        self._others: dict[str, None] = {}
        self._parts: list[tuple[Mapping[str, bool], SecretIndex]] = []
        self._fresh: dict[str, bool] = {}

    def stands_at(self, place: Hashable, text: str) -> bool:
        """Say whether a text is the latest at a place. Any thread may ask."""
        texts = self._at.get(place)
        return texts is not None and texts[0] == text

    def knows(self, text: str) -> bool:
        """Say whether a text is known."""
        return text in self._texts

    def take(self, text: str, *, is_phrase: bool, place: Hashable | None) -> None:
        """Have a text be the latest, at its place if it has one."""
        if text not in self._texts:
            self._texts[text] = self._fresh[text] = is_phrase
        if place is not None:
            self._put(text, place)
        elif text not in self._uses:
            self._set_aside(text)

    def _put(self, text: str, place: Hashable) -> None:
        before = self._at.get(place, ())
        latest = (text, *(each for each in before if each != text))
        kept = 1 + self._most_former
        self._at[place] = latest[:kept]
        if text not in before:
            self._uses[text] += 1
            self._others.pop(text, None)
        for former in latest[kept:]:
            self._uses[former] -= 1
            if not self._uses[former]:
                del self._uses[former]
                self._set_aside(former)

    def _set_aside(self, text: str) -> None:
        """Have a text be the latest of those without a place, and forget the oldest of them."""
        self._others.pop(text, None)
        self._others[text] = None
        while len(self._others) > self._most_others:
            oldest = next(iter(self._others))
            del self._others[oldest], self._texts[oldest]
            self._fresh.pop(oldest, None)

    def indexes(self) -> tuple[SecretIndex, ...]:
        """Return what finds all texts in all spellings, and for a while some that are known no more.

        To index all takes long where there are thousands: new ones have an index of their own, into which
        ever larger ones are merged as it grows. Those leave out what is known no more.
        """
        if self._fresh:
            merged, self._fresh = self._fresh, {}
            while self._parts and len(self._parts[-1][0]) <= max(_FEW, _RATIO * len(merged)):
                older, _ = self._parts.pop()
                merged = {**older, **merged}
            known = {text: is_phrase for text, is_phrase in merged.items() if text in self._texts}
            self._parts.append((known, _index_of(known)))
        return tuple(index for _, index in self._parts)


def _index_of(known: Mapping[str, bool]) -> SecretIndex:
    texts, phrases, codes = set[str](), set[str](), set[str]()
    for text, is_phrase in known.items():
        (phrases if is_phrase else texts).update(written(text))
        (phrases if is_phrase else codes).update(encoded(text))
    return SecretIndex(texts, phrases, encoded=codes)
