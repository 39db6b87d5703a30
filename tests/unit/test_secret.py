"""Secrets in memory, and the redactor that takes them out of what providers say."""

import pickle

import pytest

from jobs.secret import Redactor, Secret, looks_like_a_key


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("open-sesame")

    assert "sesame" not in f"{secret} {secret!r} {[secret]}"


def test_a_secret_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret("open-sesame"))


def test_secrets_are_compared_by_their_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1


def test_a_known_secret_is_taken_out_wherever_it_stands() -> None:
    redactor = Redactor()
    redactor.learn([Secret("hunter22")])

    assert redactor.clean("key hunter22 is wrong (xhunter22x)") == "key [secret] is wrong (x[secret]x)"


def test_the_longer_of_two_nested_secrets_goes_first() -> None:
    redactor = Redactor()
    redactor.learn([Secret("abcdef"), Secret("abcdefghij")])

    assert redactor.clean("abcdefghij") == "[secret]"


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-abcdefghijklmnop",
        "AIzaSyA-1234567890abcdefghijkl",
        "eyJhbGciOiJub25lIn0.eyJhIjoxfQ.c2ln",
        "Authorization: Bearer abcdefghijk",
    ],
)
def test_what_is_shaped_like_a_key_goes_even_if_nobody_knew_it(text: str) -> None:
    assert "[secret]" in Redactor().clean(f"before {text} after")


def test_words_that_merely_begin_like_a_key_stay() -> None:
    text = "skating in Basic English with no-key-required"

    assert Redactor().clean(text) == text
    assert not looks_like_a_key(text)
