"""Our own secrets are found in whatever form a provider quotes them."""

import pytest

from jobs.secret import Redactor, Secret, secrets_in_headers

KEY = "zk9/house+of.keys=4711"


@pytest.fixture
def redactor() -> Redactor:
    knowing = Redactor()
    knowing.learn([Secret("zk9/another.one=0815"), Secret(KEY), Secret("ollama")])
    return knowing


@pytest.mark.parametrize(
    ("said", "cleaned"),
    [
        (f"no such key {KEY}.", "no such key [secret]."),
        ("?key=zk9%2Fhouse%2Bof.keys%3D4711&x=1", "?key=[secret]&x=1"),
        ("provided: zk9/hou***4711.", "provided: [secret]."),
        ("provided: zk9/hou********.", "provided: [secret]."),
        ("provided: ****4711", "provided: [secret]"),
        ("provided: zk9/…", "provided: [secret]"),
        ("a message that was cut at zk9/house+o", "a message that was cut at [secret]"),
    ],
)
def test_a_secret_is_found_whole_quoted_for_a_url_without_its_middle_and_cut_off(
    redactor: Redactor, said: str, cleaned: str
) -> None:
    assert redactor.clean(said) == cleaned


@pytest.mark.parametrize("said", ["and so on ...", "**bold** words", "ollama is a server", "zk9 is a name"])
def test_ordinary_words_stay(redactor: Redactor, said: str) -> None:
    assert redactor.clean(said) == said


def test_a_models_words_lose_our_secrets_and_nothing_else(redactor: Redactor) -> None:
    said = f"Send `Authorization: Bearer sk-your-own-key-here-0123`, not {KEY}."

    assert redactor.own(said) == "Send `Authorization: Bearer sk-your-own-key-here-0123`, not [secret]."


def test_a_secret_that_is_learned_twice_is_known_once(redactor: Redactor) -> None:
    redactor.learn([Secret(KEY), Secret(KEY)])

    assert redactor.clean(KEY) == "[secret]"


def test_headers_that_admit_somebody_hold_secrets_and_others_do_not() -> None:
    headers = {"X-Team": "ops", "X-Api-Key": "one", "Authorization": "two", "Cookie": "three"}

    assert secrets_in_headers(headers) == [Secret("one"), Secret("two"), Secret("three")]
