"""Our own secrets are found in whatever form a provider quotes them."""

import pytest
from support.hang_guard import ends

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


@pytest.mark.parametrize("ending", ["", "zk9/house", KEY[:-1]])
def test_the_end_of_a_text_is_the_beginning_of_a_secret_only_where_it_was_cut(
    redactor: Redactor, ending: str
) -> None:
    said = f"{KEY} is the house of {ending}"
    kept = f"[secret] is the house of {ending}"
    masked = f"[secret] is the house of {ending and '[secret]'}"

    assert [redactor.own(said), redactor.own(said, is_cut=True)] == [kept, masked]
    assert [redactor.clean(said, is_cut=False), redactor.clean(said)] == [kept, masked]


def test_a_short_text_that_is_harmless_as_a_whole_is_looked_at_again_where_it_was_cut(
    redactor: Redactor,
) -> None:
    assert redactor.clean("zk9/house", is_cut=False) == "zk9/house"
    assert redactor.clean("zk9/house") == "[secret]"


@pytest.mark.parametrize(
    "unit",
    [
        "-eyJ",
        "eyJa.",
        "eyJ",
        "sk-",
        "AIza-",
        "bearer ",
        "basic\t",
        " ",
        "*",
        "***a",
        "zk9/***",
        "zk9/",
        "...",
    ],
)
def test_what_a_stranger_wrote_is_read_once_however_long_it_is(redactor: Redactor, unit: str) -> None:
    """Nothing in it is tried again from each of its characters: the whole process would wait for that."""
    hostile = "bearer " + unit * (400_000 // len(unit)) + " "

    with ends():
        redactor.clean(hostile)


@pytest.mark.parametrize(
    ("said", "cleaned"),
    [
        ("token-eyJhbGciOiJub25lIn0.eyJhIjoxfQ.c2ln!", "token-[secret]!"),
        ("eyJhb-sk-aaaaaaaaaaaaaaaa.cGF5bG9hZA.c2ln", "[secret]"),
        ("eyJ eyJa eyJa.b word", "eyJ eyJa eyJa.b word"),
    ],
)
def test_a_token_of_anybodys_is_found_inside_a_longer_word(
    redactor: Redactor, said: str, cleaned: str
) -> None:
    assert redactor.clean(said) == cleaned


def test_several_cut_secrets_go_from_one_text(redactor: Redactor) -> None:
    said = "zk9/hou***4711, then zk9/ano...0815 and ****4711; zk9/… again"

    assert redactor.clean(said) == "[secret], then [secret] and [secret]; [secret] again"


def test_a_secret_that_is_learned_twice_is_known_once(redactor: Redactor) -> None:
    redactor.learn([Secret(KEY), Secret(KEY)])

    assert redactor.clean(KEY) == "[secret]"


def test_headers_that_admit_somebody_hold_secrets_and_others_do_not() -> None:
    headers = {"X-Team": "ops", "X-Api-Key": "one", "Authorization": "two", "Cookie": "three"}

    assert secrets_in_headers(headers) == [Secret("one"), Secret("two"), Secret("three")]


def test_the_key_behind_its_scheme_is_one_too_and_so_is_what_looks_random_in_any_header() -> None:
    headers = {
        "Authorization": "Bearer abcdefgh12",
        "X-Tenant": "0a1b2c3d; team=operations",
        "Referer": "https://example.org/in?token=Zx81Qq0aBc93",
    }

    assert secrets_in_headers(headers) == [
        *(Secret("Bearer abcdefgh12"), Secret("abcdefgh12")),
        Secret("0a1b2c3d"),
        Secret("Zx81Qq0aBc93"),
    ]


@pytest.mark.parametrize(
    "value",
    ["operations", "production", "application/json", "text/html;q=0.9", "ops only", "output-128k-2025-02-19",
     "https://example.org/app", "Mozilla/5.0 (X11; Linux x86_64)", "myApplication"],
)  # fmt: skip
def test_ordinary_words_in_a_header_that_admits_nobody_are_no_secrets(value: str) -> None:
    assert secrets_in_headers({"X-Env": value}) == []
