"""Known texts are found in others as one would find them one by one, but sooner."""

import random
import time
from collections.abc import Sequence
from uuid import UUID

import pytest

from jobs.secret import Redactor, Secret
from jobs.secret_index import SecretIndex


def plainly_whole(known: Sequence[str], text: str) -> list[str]:
    return sorted((each for each in known if each in text), key=lambda each: (-len(each), each))


def plainly_begun(known: Sequence[str], text: str, end: int, after: int, shortest: int) -> int:
    places = range(after, end - shortest + 1)
    return next((at for at in places if any(each.startswith(text[at:end]) for each in known)), end)


@pytest.mark.parametrize("number", [1, 5, 64, 65, 200])
def test_every_text_is_searched_as_it_would_be_one_by_one(number: int) -> None:
    some = random.Random(number)

    def letters(most: int) -> str:
        return "".join(some.choices("abc", k=some.randint(0, most)))

    for _ in range(200):
        known = list({f"{letters(8)}{some.choice(('aabbcc', 'bcabca'))}" for _ in range(number)})
        index = SecretIndex(known)
        text = "".join(
            some.choice((letters(6), some.choice(known), some.choice(known)[:5])) for _ in range(4)
        )
        end, tail = some.randint(0, len(text)), letters(7)
        after, shortest = some.randint(0, end), some.choice((4, 6))

        assert index.whole(text) == plainly_whole(known, text)
        begun = index.begun(text, end, after=after, shortest=shortest)
        assert begun == plainly_begun(known, text, end, after, shortest)
        assert index.ends_with(tail) is any(each.endswith(tail) for each in known)


def test_a_phrase_is_found_whole_and_neither_begun_nor_ended() -> None:
    index = SecretIndex(["abcdefgh"], ["/correct-horse"])

    assert index.whole("at /correct-horse, abcdefgh") == ["/correct-horse", "abcdefgh"]
    assert [index.begun("at /correct", 11), index.begun("at abcdef", 9)] == [11, 3]
    assert [index.ends_with("horse"), index.ends_with("efgh")] == [False, True]


def test_a_text_is_searched_for_thousands_nearly_as_soon_as_for_a_hundred() -> None:
    some = random.Random(5)
    known = [f"{some.getrandbits(128):032x}" for _ in range(5_000)]
    text = "The quick brown fox is no secret. " * 5_000

    def seconds(index: SecretIndex) -> float:
        started = time.process_time()
        index.whole(text)
        return time.process_time() - started

    hundred, thousands = SecretIndex(known[:100]), SecretIndex(known)
    assert min(seconds(thousands) for _ in range(3)) < 10 * min(seconds(hundred) for _ in range(3))


@pytest.mark.parametrize("unit", ["ab... ", "sk-proj-", "sk-pro***", "00000000-", "word "])
def test_what_a_search_costs_hardly_grows_with_what_is_known(unit: str) -> None:
    """One by one this takes minutes: the loop of the daemon would wait for a peer's words."""
    some = random.Random(7)
    redactor = Redactor()
    redactor.learn(Secret(str(UUID(int=some.getrandbits(128)))) for _ in range(2_000))
    redactor.learn(Secret(f"sk-proj-{some.getrandbits(128):032x}") for _ in range(2_000))

    started = time.process_time()
    redactor.clean(unit * (100_000 // len(unit)))

    assert time.process_time() - started < 1
