"""Our own secrets are found as others escape and encode them, and nothing else is."""

import base64
import html
import json
import random
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from support.work import Read

from jobs.secret import MOST_TOKENS, Phrase, Redactor, Secret, Token

KEY = "Zq9hunter2-ABCDEF+gh/ijkl=mnop42"
QUOTED = 'pa"ss\\word9Q7zz!x'
PUNCTUATED = "Qz7!(a)+b/c;d'e=f?g<h"
BOTH_QUOTES = "Q7\"zz'x81<y\\z/"
DECODED = 'clé"Zq\t81'  # as a part of a URL may be
RARE = "~>?~zz>>~>>?~9?>~q"  # its base64 is not the same in both alphabets


@pytest.fixture
def redactor() -> Redactor:
    knowing = Redactor()
    knowing.learn(Secret(each) for each in (KEY, QUOTED, PUNCTUATED, BOTH_QUOTES, DECODED, RARE))
    knowing.learn(Secret(each) for each in ("a'b&c<d>e f", "clé-Zq81-ürq", "Zq81xy"))
    return knowing


def lower(escaped: str) -> str:
    """Return percent escapes in lower case; the letters between them stay."""
    first, *others = escaped.split("%")
    return "%".join([first, *(each[:2].lower() + each[2:] for each in others)])


@pytest.mark.parametrize(
    "spelled",
    [
        quote(KEY),
        quote(KEY, safe=""),
        lower(quote(KEY)),
        lower(quote(KEY, safe="")),
        quote(KEY, safe="+=/"),
        quote(QUOTED, safe="!*'()"),
        quote(QUOTED, safe=""),
        quote(PUNCTUATED, safe=""),
        quote(PUNCTUATED, safe="/"),
        quote(PUNCTUATED, safe="!*'()"),
        quote(PUNCTUATED, safe=";/?:@&=+$,#!*'()"),
        quote(PUNCTUATED, safe="!$&'()*+,;=:@/"),
        quote_plus("a'b&c<d>e f"),
        quote("clé-Zq81-ürq"),
        KEY.replace("/", "\\/"),
        KEY.replace("=", "\\u003d"),
        KEY.replace("+", "\\u002B"),
        KEY.replace("+", "&#43;"),
        repr(QUOTED)[1:-1],
        repr(DECODED)[1:-1],
        json.dumps(DECODED, ensure_ascii=False)[1:-1],
        json.dumps(BOTH_QUOTES)[1:-1],
        json.dumps(QUOTED)[1:-1],
        json.dumps("clé-Zq81-ürq")[1:-1],
        QUOTED.replace("\\", "\\\\").replace('"', "\\u0022"),
        "a\\'b&c<d>e f",
        "a'b\\u0026c\\u003cd\\u003ee f",
        "a\\u0027b\\u0026c\\u003Cd\\u003Ee f",
        html.escape(QUOTED),
        *(
            html.escape(BOTH_QUOTES, quote=False).replace('"', double).replace("'", single)
            for double in ("&quot;", "&#34;")
            for single in ("&#x27;", "&#39;", "&#039;", "&apos;")
            if double == "&quot;" or single == "&#39;"
        ),
        QUOTED.replace('"', "&#34;"),
        html.escape("a'b&c<d>e f"),
        html.escape("a'b&c<d>e f", quote=False),
        "a&#39;b&amp;c&lt;d&gt;e f",
        "a&apos;b&amp;c&lt;d&gt;e f",
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
    ],
)
def test_a_secret_is_found_as_others_escape_it(redactor: Redactor, spelled: str) -> None:
    said = f"no such key: '{spelled}', look"

    assert redactor.own(said) == redactor.clean(said) == "no such key: '[secret]', look"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("pad", ["=", ""])
@pytest.mark.parametrize("key", [KEY, QUOTED, RARE, "Zq81xy"])
@pytest.mark.parametrize("before", ["", ":", "me", "api:", "user:", "x-a-longer-user:"])
@pytest.mark.parametrize("after", ["", ":", "ab", ":x "])
def test_no_base64_of_a_secret_shows_more_of_it_than_a_byte_at_each_end(
    redactor: Redactor, encode: Callable[[bytes], bytes], pad: str, key: str, before: str, after: str
) -> None:
    digits = encode(f"{before}{key}{after}".encode()).decode().replace("=", pad)

    shown = redactor.own(f"sent {digits}.").removeprefix("sent ").removesuffix(".")

    front, masked, behind = shown.partition("[secret]")
    assert masked
    assert digits.startswith(front)
    assert digits.endswith(behind)
    assert len(front) <= len(before.encode()) * 8 // 6 + 1
    assert len(behind.rstrip("=")) <= (len(after.encode()) * 8 + 4) // 6 + 1


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(b"a text of somebody else that says nothing, as long as it may be").decode(),
        b"a text of somebody else".hex(),
        json.dumps({"path": "C:\\words\\more", "said": 'pa"ssing words', "é": "ü"}),
        '<a href="/in?a=1&amp;b=%2Fc%3D">pa&quot;ss</a>',
        "id WnE5 and 5a71, **Zq9h",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        base64.b64encode(b"ollama").decode() + base64.b64encode(b"short").decode(),
        b"ollama".hex() + b"Zq81".hex(),
    ],
)
def test_other_texts_stay(redactor: Redactor, text: str) -> None:
    redactor.learn([Secret("ollama"), Secret("short"), Secret("Zq81")])

    assert redactor.own(text) == text
    assert redactor.clean(text, is_cut=False) == text


def test_a_short_text_is_looked_at_again_when_more_is_known() -> None:
    redactor, digits = Redactor(), KEY.encode().hex()[:60]
    assert redactor.clean(digits) == digits

    redactor.learn([Secret(KEY)])

    assert redactor.clean(digits) == "[secret]"


def test_an_encoded_secret_that_was_cut_goes_too(redactor: Redactor) -> None:
    digits, codes = base64.b64encode(KEY.encode()).decode(), KEY.encode().hex()

    assert redactor.clean(f"cut at {digits[:20]}") == "cut at [secret]"
    assert redactor.clean(f"shown: {codes[:12]}***") == "shown: [secret]"


@pytest.mark.parametrize("text", ["16 2f 5a7139", "5a7139... and so on", "WnE5aH"])
def test_a_few_digits_are_no_beginning_of_an_encoded_secret(redactor: Redactor, text: str) -> None:
    assert redactor.clean(text) == text


def test_a_phrase_is_found_encoded_as_a_whole_and_not_begun() -> None:
    redactor = Redactor()
    redactor.learn([Phrase("/correct-horse-battery"), Secret("https://example.org/in?a=1")])
    digits = base64.b64encode(b"https://example.org/in?a=1").decode()

    assert redactor.clean(f"to %2Fcorrect-horse-battery, {digits[:34]}") == "to [secret], [secret]"
    assert redactor.clean(f"to %2Fcorrect, {digits[:20]}") == f"to %2Fcorrect, {digits[:20]}"


def test_of_tokens_that_follow_each_other_the_latest_are_known_and_keys_stay() -> None:
    redactor = Redactor()
    redactor.learn([Secret(KEY), Token("token-first-0"), Token("token-idle-00")])
    for number in range(MOST_TOKENS + 50):
        redactor.learn([Token(f"token-{number}-later"), Token("token-first-0")])

    assert redactor.own(f"{KEY} token-first-0 token-51-later") == "[secret] [secret] [secret]"
    assert redactor.own("token-idle-00 token-0-later") == "token-idle-00 token-0-later"

    redactor.learn([Token("token-idle-00")])
    assert redactor.own("token-idle-00 token-0-later") == "[secret] token-0-later"


def test_a_text_is_searched_for_fifty_keys_in_all_spellings_with_less_than_one_look_at_each_character() -> (
    None
):
    """Of some 450 spellings; to seek the keys alone one by one takes fifty looks at each."""
    some = random.Random(3)
    redactor = Redactor()
    redactor.learn(Secret(f"sk-{some.getrandbits(192):048x}") for _ in range(50))
    text = Read("The quick brown fox is no secret. " * 10_000)

    assert redactor.own(text) == text
    assert 0 < text.looked_at < len(text)
