"""What the redactor knows, for how long, and what it costs to learn one more."""

import random
from functools import partial

import pytest
from support.work import calls

from jobs.secret import MOST_FORMER, MOST_TOKENS, Redactor, Secret, Token

KEY = "Zq9hunter2-ABCDEF"


def masks(redactor: Redactor, text: str) -> bool:
    """Say whether a text is taken out."""
    return redactor.own(f"said {text}!") == "said [secret]!"


def test_a_token_is_known_as_long_as_it_stands_where_it_does_however_many_others_come_and_go() -> None:
    redactor = Redactor()
    redactor.learn([Token("token-of-a-slow-login")])  # as it came
    redactor.learn_at("slow login", Token("token-of-a-slow-login"))
    redactor.learn([Token("token-of-a-slow-login")])  # as it is sent
    for number in range(2 * MOST_TOKENS):
        redactor.learn_at("busy login", Token(f"token-{number}-of-a-busy-login"))
        redactor.learn([Token(f"token-{number}-of-nobody")])
        redactor.own("")

    assert masks(redactor, "token-of-a-slow-login")
    assert masks(redactor, f"token-{2 * MOST_TOKENS - 1}-of-a-busy-login")
    assert not masks(redactor, "token-0-of-a-busy-login")


def test_a_token_that_is_replaced_is_the_latest_of_those_that_stand_nowhere() -> None:
    redactor = Redactor()
    redactor.learn_at("login", Token("token-before"))
    redactor.learn(Token(f"token-{number}-of-nobody") for number in range(MOST_TOKENS))
    redactor.learn_at("login", Token("token-after"))
    redactor.learn(Token(f"token-{number}-of-others") for number in range(MOST_TOKENS - 1))

    assert [masks(redactor, each) for each in ("token-before", "token-after")] == [True, True]


def test_a_token_that_stands_nowhere_is_the_latest_when_it_is_learned_again() -> None:
    redactor, others = Redactor(), [Token(f"token-{number}-of-others") for number in range(2 * MOST_TOKENS)]
    redactor.learn([Token("token-again"), *others[: MOST_TOKENS - 1], Token("token-again")])
    redactor.learn(others[MOST_TOKENS : 2 * MOST_TOKENS - 1])

    assert masks(redactor, "token-again")


def test_of_what_stood_at_a_place_the_latest_are_known_and_what_stands_elsewhere_too_stays() -> None:
    redactor, rotations = Redactor(), 5 * MOST_FORMER
    redactor.learn([Secret("key-0-of-the-file")])
    redactor.learn_at("variable", Secret("key-1-of-the-file"))
    for number in range(rotations):
        redactor.learn_at("file", Secret(f"key-{number}-of-the-file"))
        redactor.own("")

    known = [number for number in range(rotations) if masks(redactor, f"key-{number}-of-the-file")]
    assert known[:2] == [0, 1]
    assert set(known) >= set(range(rotations - 1 - MOST_FORMER, rotations))
    assert len(known) < rotations - 2 * MOST_FORMER


def test_a_secret_that_comes_back_after_it_was_forgotten_is_known_again() -> None:
    redactor = Redactor()
    for number in [*range(5 * MOST_FORMER), 0]:
        redactor.learn_at("file", Secret(f"key-{number}-of-the-file"))
        redactor.own("")

    assert masks(redactor, "key-0-of-the-file")


@pytest.mark.parametrize("seed", range(3))
def test_what_is_learned_little_by_little_is_found_as_what_is_learned_at_once(seed: int) -> None:
    some = random.Random(seed)
    secrets = [Secret(f"sk-'é/{some.getrandbits(64):016x}") for _ in range(400)]
    at_once, in_parts = Redactor(), Redactor()
    at_once.learn(secrets)
    left = list(secrets)
    while left:
        number = some.choice((1, 1, 2, 40))
        in_parts.learn(left[:number])
        in_parts.own("")
        left = left[number:]

    for secret in secrets:
        text = secret.reveal()
        said = f"{text} {text.encode().hex()} {text[:9]}***{text[-4:]} {text[:12]}"
        assert in_parts.clean(said) == at_once.clean(said) == "[secret] [secret] [secret] [secret]"


def test_to_learn_a_hundred_more_one_by_one_is_to_index_all_but_a_few_times() -> None:
    """A log line waits for it, and so does whoever writes: a new index of all takes long."""
    some = random.Random(11)
    secrets = [Secret(f"key {some.getrandbits(128):032x}") for _ in range(300)]
    redactor = Redactor()

    def learn(which: list[Secret]) -> None:
        redactor.learn(which)
        redactor.own("")

    all_at_once = calls(partial(learn, secrets[:200]), most=10_000_000)
    left = 10 * all_at_once
    for secret in secrets[200:]:
        left -= calls(partial(learn, [secret]), most=left)
