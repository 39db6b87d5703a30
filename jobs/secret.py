"""A secret in memory: a value that can be used, but neither printed nor logged by accident."""

import hmac
import re
import threading
from collections.abc import Hashable, Iterable, Mapping
from urllib.parse import unquote, unquote_plus

from jobs.secret_index import SHORTEST, SecretIndexes
from jobs.secret_memory import SecretMemory

_MASK = "[secret]"
# Each of these reads a text in a time that grows as its length does, whoever wrote the text: what could be
# tried again shorter is possessive, and a token is looked for once in each run of its characters.
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:sk|pk|rk|gsk|xai|nvapi|hf|r8|AIza)[-_][\w\-]{12,}+|\bAIza[\w\-]{20,}+")
_LOOKS_LIKE_A_TOKEN = re.compile(
    r"(?<![\w\-])(?P<before>(?:(?!\beyJ)[\w\-])*+)eyJ[\w\-]++\.[\w\-]++\.[\w\-]*+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s++[\w\-.~+/=]{8,}+")
_SECRET_HEADER = re.compile(r"(?i)(?:authorization|key|token|secret|password|cookie)$")
_CUT = re.compile(r"(?:\*{2,}+|\.{3,}+|…++|•{2,}+)++(?P<tail>[\w\-.+/=~]*+)")
_WORD_OF_A_HEADER = re.compile(r"[^\s;,=]{8,}+")
_URL = re.compile(
    r"(?P<scheme>[^:/?#]*+)://(?:(?P<login>[^/?#]*)@)?(?P<host>[^/?#@]*+)(?P<path>[^?#]*+)"
    r"(?:\?(?P<query>[^#]*+))?(?:#(?P<fragment>.*+))?",
    re.DOTALL,
)
_HOST = re.compile(
    r"(?:(?:[a-z0-9\-]+\.)+[a-z]{2,}|[a-z][a-z0-9\-]{0,10}+|[a-z][a-z0-9\-]*(?=:\d)|\[.*\])\.?(?::\d{1,5})?"
)  # a name of several labels, a short one, one with a port, or an address of IPv6
_SECRET_KEY = re.compile(r"(?i)(?:key|pass|password|pwd|secret|sig|signature|token)$")
_SHORT_WORD = re.compile(r"[A-Za-z]?[a-z]{0,6}")
_WORD = re.compile(
    r"(?:[A-Za-z][a-z]{0,14}|(?:[a-z]{2,15}|[A-Z][a-z]{2,14})(?:[A-Z][a-z]{2,14}){1,3})\d{0,2}"
    r"|[A-Z]{0,12}|\d{1,8}"
)  # such as `in`, `v1`, `incomingWebhooks`, `API`, `20261121`
_BETWEEN_WORDS = re.compile(r"[^A-Za-z0-9]+")
_SHORTEST_RANDOM = 8
_LONG_PART = 20
_SHORT, _MOST_REMEMBERED = 64, 4096
MOST_TOKENS, MOST_FORMER = 200, 20
_SHORTEST_PART = 4
_PLACEHOLDERS = frozenset(
    {
        "no-key-required",
        "sk-no-key-required",
        "no-key",
        "not-needed",
        "ollama",
        "lm-studio",
        "dummy",
        "local-key",
    }
)  # what servers without keys are given as one


class Secret:
    """Holds a secret text; `reveal()` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the one place that sends it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled")


class Phrase(Secret):
    """A secret that consists of words: nothing but the whole of it is one."""

    __slots__ = ()


class Token(Secret):
    """A secret that another one follows before long, such as the access token of a login."""

    __slots__ = ()


def looks_like_a_key(text: str) -> bool:
    """Say whether a literal is shaped like a real provider key rather than a placeholder."""
    return bool(_LOOKS_LIKE_A_KEY.search(text) or _LOOKS_LIKE_A_TOKEN.search(text))


def names_a_secret(name: str) -> bool:
    """Say whether a value of this name is a secret, such as that of `api_token` in a query or an option."""
    return bool(_SECRET_KEY.search(name))


def is_placeholder(key: str) -> bool:
    """Say whether a key is what servers without keys are given, or too short to admit anybody."""
    return not _is_telling(key)


def secrets_in_headers(headers: Mapping[str, str]) -> list[Secret]:
    """Return what of request headers that are written out may admit somebody.

    That is each value whose name says so, and each long part of it too: the key behind `Bearer`, say. Of
    others it is each part that looks random: `operations` and `application/json` are anybody's words.
    """
    found = []
    for name, value in headers.items():
        if _SECRET_HEADER.search(name):
            found += [Secret(part) for part in dict.fromkeys((value, *_WORD_OF_A_HEADER.findall(value)))]
        else:
            found += [secret for word in value.split() for secret in _secrets_in_word(word)]
    return found


def _secrets_in_word(word: str) -> list[Secret]:
    if "://" in word:
        return secrets_in_url(word)
    return [Secret(part) for part in _WORD_OF_A_HEADER.findall(word) if _looks_random(part)]


def secrets_in_url(text: str) -> list[Secret]:
    """Return the parts of a URL, an Apprise URL too, that may admit somebody, as written and as decoded.

    Those are passwords, values that a query names like one, and each other part of login, path, query and
    fragment that looks random: `services`, `v1` or `morning-digest` stand in every log. Where none of a path
    does, each long part of it is a phrase. A host is one where the scheme is not HTTP's and it looks like
    no host: Apprise puts tokens there. What is shorter than six characters no redactor takes out.
    """
    found = _URL.fullmatch(text)
    if found is None:
        return [Secret(text)]
    user, _, password = (found["login"] or "").partition(":")
    path = found["path"].split("/")
    pairs = [pair.partition("=") for pair in re.split("[&;]", found["query"] or "")]
    places = [user, *path, found["fragment"] or "", *(value for _, _, value in pairs)]
    if found["scheme"].lower() not in ("http", "https") and not _HOST.fullmatch(found["host"]):
        places += [found["host"], *found["host"].split(":")]
    named = [
        value for name, _, value in pairs if _SECRET_KEY.search(name) and not _SHORT_WORD.fullmatch(value)
    ]
    random = filter(_looks_random, places)
    phrases = (
        [] if any(map(_looks_random, path)) else [f"/{each}" for each in path if len(each) >= _LONG_PART]
    )
    return [*map(Secret, _spellings([password, *named, *random])), *map(Phrase, _spellings(phrases))]


def _spellings(parts: Iterable[str]) -> list[str]:
    spelled = (way(each) for each in parts for way in (str, unquote, unquote_plus))
    return [each for each in dict.fromkeys(spelled) if len(each) >= SHORTEST]


def _looks_random(text: str) -> bool:
    """Say whether enough of a text is neither a word, a few words in one, nor a number."""
    pieces = _BETWEEN_WORDS.split(unquote(text))
    unknown = sum(len(piece) for piece in pieces if not _WORD.fullmatch(piece))
    return unknown >= SHORTEST and len(text) >= _SHORTEST_RANDOM


class Redactor:
    """Takes every secret that was ever read in this process out of a text.

    Texts shaped like keys, JSON web tokens and bearer headers go too: a provider may quote a key
    that was never ours. Ours are found as they are escaped and encoded as well (`jobs/secret_spellings.py`),
    with their middle left out (`sk-ab***yz`), and begun at the end of a text that was cut there: a whole one
    may well end in a word with which one of ours begins. What stands at a place, such as a file or a login,
    is known as long as it stands there. Of what stood there before, the latest 20 are, and of all tokens that
    stand at none, the latest 200.
    """

    def __init__(self) -> None:
        self._lasting = SecretMemory(most_former=MOST_FORMER)
        self._tokens = SecretMemory(most_others=MOST_TOKENS)
        self._learning = threading.Lock()
        self._index: SecretIndexes | None = None
        self._harmless: set[str] = set()

    def learn(self, secrets: Iterable[Secret]) -> None:
        """Remember secrets; placeholders, and ones shorter than six characters, are ordinary words.

        Any thread may call it; what is known already costs nearly nothing. A URL is a phrase: many begin
        like it. All but tokens are known for good: each is a place of its own.
        """
        self._learn((secret, None if isinstance(secret, Token) else secret) for secret in secrets)

    def learn_at(self, place: Hashable, secret: Secret) -> None:
        """Remember what stands at a place now, such as a file or a login, as `learn` does."""
        self._learn([(secret, place)])

    def _learn(self, secrets: Iterable[tuple[Secret, Hashable | None]]) -> None:
        unknown = [
            (memory, text, isinstance(secret, Phrase) or "://" in text, place)
            for secret, place in secrets
            if _is_telling(text := secret.reveal())
            and not (memory := self._memory_of(secret)).stands_at(place, text)
        ]
        if not unknown:
            return
        with self._learning:
            if not all(memory.knows(text) for memory, text, _, _ in unknown):
                # First: whoever finds one at its place from now on waits for the index that has it.
                self._index, self._harmless = None, set()
            for memory, text, is_phrase, place in unknown:
                memory.take(text, is_phrase=is_phrase, place=place)

    def _memory_of(self, secret: Secret) -> SecretMemory:
        return self._tokens if isinstance(secret, Token) else self._lasting

    def _known(self) -> SecretIndexes:
        """Return what finds all that is known; what was learned since is indexed now, many at once."""
        index = self._index
        if index is None:
            with self._learning:
                index = self._index = SecretIndexes(*self._lasting.indexes(), *self._tokens.indexes())
        return index

    def clean(self, text: str, *, is_cut: bool = True) -> str:
        """Return `text` with every secret, and all that looks like one, replaced by `[secret]`.

        What peers and libraries say may be cut, by them or by us; `is_cut=False` is for what is surely whole.
        Short texts in which there was nothing are remembered: the words of logs come again and again.
        """
        harmless = self._harmless
        if text in harmless:
            return text
        cleaned = self._cleaned(text, is_cut)
        if is_cut and cleaned == text and len(text) <= _SHORT and len(harmless) < _MOST_REMEMBERED:
            harmless.add(text)
        return cleaned

    def _cleaned(self, text: str, is_cut: bool) -> str:
        known = self._without_parts(self.own(text, is_cut=is_cut))
        text = _LOOKS_LIKE_A_TOKEN.sub(rf"\g<before>{_MASK}", known)
        return _BEARER.sub(rf"\1 {_MASK}", _LOOKS_LIKE_A_KEY.sub(_MASK, text))

    def own(self, text: str, *, is_cut: bool = False) -> str:
        """Return `text` with our own secrets replaced, and nothing else: for a model's words.

        Where the text `is_cut`, the beginning of one goes from its end too.
        """
        index = self._known()
        for known in index.whole(text):
            text = text.replace(known, _MASK)
        begun = index.begun(text, len(text)) if is_cut else len(text)
        return text if begun == len(text) else text[:begun] + _MASK

    def _without_parts(self, text: str) -> str:
        """Mask each secret of which the text shows the beginning or the end, with a cut between."""
        index = self._known()
        kept, done, after = [], 0, 0
        for found in _CUT.finditer(text):
            cut, tail = found.start(), found["tail"].rstrip(".")
            begun = index.begun(text, cut, after=after, shortest=_SHORTEST_PART)
            is_ended = len(tail) >= _SHORTEST_PART and index.ends_with(tail)
            after = found.start("tail")
            if begun < cut or is_ended:
                kept += [text[done:begun], _MASK]
                done = after = after + len(tail)
        return "".join([*kept, text[done:]])


def _is_telling(text: str) -> bool:
    return len(text) >= SHORTEST and text.lower() not in _PLACEHOLDERS
