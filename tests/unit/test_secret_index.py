"""Known texts are found in others as one would find them one by one, but sooner."""

import random
from collections.abc import Sequence
from uuid import UUID

import pytest
from support.work import Read, calls

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

    def looked_at(number: int) -> int:
        text = Read("The quick brown fox is no secret. " * 5_000)
        SecretIndex(known[:number]).whole(text)
        return text.looked_at

    assert 0 < looked_at(5_000) < 5 * looked_at(100)


def knowing(number: int) -> Redactor:
    some = random.Random(7)
    redactor = Redactor()
    redactor.learn(Secret(str(UUID(int=some.getrandbits(128)))) for _ in range(number // 2))
    redactor.learn(Secret(f"sk-proj-{some.getrandbits(128):032x}") for _ in range(number // 2))
    redactor.own("")  # what is known is indexed
    return redactor


@pytest.fixture(scope="module")
def few() -> Redactor:
    return knowing(40)


@pytest.fixture(scope="module")
def many() -> Redactor:
    return knowing(4_000)


@pytest.mark.parametrize("unit", ["ab... ", "sk-proj-", "sk-pro***", "00000000-", "word "])
def test_what_a_search_costs_hardly_grows_with_what_is_known(
    unit: str, few: Redactor, many: Redactor
) -> None:
    """One by one it grows as that does: the loop of the daemon would wait for a peer's words."""

    def looked_at_by(redactor: Redactor, most_calls: int) -> tuple[int, int]:
        text = Read(unit * (30_000 // len(unit)))
        return calls(lambda: redactor.clean(text), most=most_calls), text.looked_at

    few_calls, beside_few = looked_at_by(few, 1_000_000)
    _, beside_many = looked_at_by(many, 20 * few_calls)

    assert 0 < beside_many < 20 * beside_few
