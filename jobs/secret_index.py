"""Finds which of many known texts stand in another one: whole, begun, or ended."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

SHORTEST = 6
_STEP = 4  # characters that are looked up first: no beginning or ending that counts is shorter
_SHORTEST_ENCODED = 8  # characters of an encoded text that count as its beginning: numbers are shorter
_STRIDES = range(1, 33)
# What a search costs, as measured: a look at each place of a text; to seek one known text, by its length; and
# what learning and keeping a mark is worth.
_EVERY_PLACE, _ONE, _MARK = 512.0, 16.0, 0.001


class SecretIndex:
    """What is to be found, each at least six characters long; it does not change.

    What a search costs grows with the text that is searched, hardly with how many texts are known. `phrases`
    are found whole only: their first or last words are anybody's. `encoded` ones are found whole and begun.
    """

    def __init__(
        self, texts: Iterable[str] = (), phrases: Iterable[str] = (), *, encoded: Iterable[str] = ()
    ) -> None:
        plain, codes = frozenset(texts), frozenset(encoded)
        self._known = plain | codes | frozenset(phrases)
        self._stride = _cheapest_stride(sorted(map(len, self._known)))
        self._marks = _marks(self._known, self._stride)
        self._one_by_one = [known for known in self._known if not _is_marked(known, self._stride)]
        self._longest = max(map(len, plain | codes), default=0)
        self._onwards, self._codes = sorted(plain), sorted(codes)
        self._backwards = sorted(known[::-1] for known in plain)
        self._beginnings = frozenset(known[:_STEP] for known in plain | codes)

    def whole(self, text: str) -> Sequence[str]:
        """Return all that stands in a text, the longest first."""
        met = {known for known in self._one_by_one if known in text}
        if self._stride:
            met |= self._met_by_marks(text)
        return _longest_first(met)

    def _met_by_marks(self, text: str) -> set[str]:
        marks, known = self._marks, self._known
        return {
            found
            for at in range(0, len(text) - SHORTEST + 1, self._stride)
            if (piece := text[at : at + SHORTEST]) in marks
            for before, length in marks[piece]
            if (found := text[at - before : at - before + length]) in known
        }

    def begun(self, text: str, end: int, *, after: int = 0, shortest: int = SHORTEST) -> int:
        """Return the first place from `after` on at which something begins that `end` cuts off; else `end`.

        At least `shortest` characters of it, 4 or more, stand before `end`; of an encoded one also eight.
        """
        for at in range(max(after, end - self._longest), end - shortest + 1):
            if text[at : at + _STEP] in self._beginnings:
                piece = text[at:end]
                if _leads(self._onwards, piece) or (
                    len(piece) >= _SHORTEST_ENCODED and _leads(self._codes, piece)
                ):
                    return at
        return end

    def ends_with(self, tail: str) -> bool:
        """Say whether something ends with these characters, which are not more than it has itself."""
        return len(tail) <= self._longest and _leads(self._backwards, tail[::-1])


class SecretIndexes:
    """Several of them, asked as one."""

    def __init__(self, *parts: SecretIndex) -> None:
        self._parts = parts

    def whole(self, text: str) -> Sequence[str]:
        """Return all that stands in a text, the longest first."""
        return _longest_first({known for part in self._parts for known in part.whole(text)})

    def begun(self, text: str, end: int, *, after: int = 0, shortest: int = SHORTEST) -> int:
        """Return the first place at which something begins that `end` cuts off, as each part does."""
        begun = (part.begun(text, end, after=after, shortest=shortest) for part in self._parts)
        return min(begun, default=end)

    def ends_with(self, tail: str) -> bool:
        """Say whether something ends with these characters."""
        return any(part.ends_with(tail) for part in self._parts)


def _cheapest_stride(lengths: Sequence[int]) -> int:
    """Return how many places of a text each look may pass over; 0: all are sooner sought one by one."""

    one_by_one = [0.0, *accumulate(_ONE / length for length in lengths)]

    def cost(stride: int) -> float:
        shorter = bisect_left(lengths, stride + SHORTEST - 1)
        return _EVERY_PLACE / stride + one_by_one[shorter] + (len(lengths) - shorter) * stride * _MARK

    stride = min(_STRIDES, key=cost)
    return stride if cost(stride) < one_by_one[-1] else 0


def _is_marked(known: str, stride: int) -> bool:
    return stride > 0 and len(known) >= stride + SHORTEST - 1


def _marks(texts: Iterable[str], stride: int) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return pieces of texts, and for each how far from its text's beginning it stands and that one's length.

    Wherever a text stands, one of its first `stride` pieces stands at a multiple of `stride`.
    """
    shapes: dict[str, set[tuple[int, int]]] = {}
    for known in texts:
        if _is_marked(known, stride):
            for before in range(stride):
                shapes.setdefault(known[before : before + SHORTEST], set()).add((before, len(known)))
    shared: dict[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]] = {}
    return {piece: shared.setdefault(places := tuple(found), places) for piece, found in shapes.items()}


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(sorted(texts), key=len, reverse=True)


def _leads(ordered: Sequence[str], text: str) -> bool:
    """Say whether one of some texts, which are in order, begins with this one."""
    at = bisect_left(ordered, text)
    return at < len(ordered) and ordered[at].startswith(text)
