"""A secret in memory: a value that can be used, but neither printed nor logged by accident."""

import hmac
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, unquote, unquote_plus

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
_SHORTEST_HEADER = 8
_URL = re.compile(
    r"(?P<scheme>[^:/?#]*+)://(?:(?P<login>[^/?#]*)@)?(?P<host>[^/?#@]*+)(?P<path>[^?#]*+)"
    r"(?:\?(?P<query>[^#]*+))?(?:#(?P<fragment>.*+))?",
    re.DOTALL,
)
_SECRET_KEY = re.compile(r"(?i)(?:auth|code|key|pass|password|pwd|secret|sig|signature|token)$")
_WORD_OF_A_URL = re.compile(r"[A-Za-z][a-z]{0,14}\d{0,2}|[A-Z]{1,12}|\d{1,8}")
_BETWEEN_WORDS = re.compile(r"[^A-Za-z0-9]+")
_SHORTEST_REDACTED = 6
_SHORTEST_PATH = 16
_SHORT, _MOST_REMEMBERED = 64, 4096
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


def looks_like_a_key(text: str) -> bool:
    """Say whether a literal is shaped like a real provider key rather than a placeholder."""
    return bool(_LOOKS_LIKE_A_KEY.search(text) or _LOOKS_LIKE_A_TOKEN.search(text))


def secrets_in_headers(headers: Mapping[str, str]) -> list[Secret]:
    """Return the values of request headers that may admit somebody: by their name, or from 8 characters on.

    Where the name says so, each long part of the value is one too: the key behind `Bearer`, say.
    """
    found = []
    for name, value in headers.items():
        telling = _SECRET_HEADER.search(name) is not None
        parts = [part for part in _WORD_OF_A_HEADER.findall(value) if part != value] if telling else []
        found += [value, *parts] if telling or len(value) >= _SHORTEST_HEADER else []
    return [Secret(value) for value in found]


def secrets_in_url(text: str) -> list[Secret]:
    """Return the parts of a URL, an Apprise URL too, that may admit somebody, as written and as decoded.

    Those are passwords, values that a query names like one, and each other part of login, path, query and
    fragment that is no plain word or number: `services`, `v1` or `morning-digest` stand in every log. Where
    a path has nothing but words it is one as a whole. A host is one where the scheme is not HTTP's and it
    is no name: Apprise puts tokens there. What is shorter than six characters no redactor takes out.
    """
    found = _URL.fullmatch(text)
    if found is None:
        return [Secret(text)]
    user, _, password = (found["login"] or "").partition(":")
    places = [user, *found["path"].split("/"), found["fragment"] or ""]
    if found["scheme"].lower() not in ("http", "https"):
        places += [found["host"], *found["host"].split(":")]
    pairs = [pair.partition("=") for pair in re.split("[&;]", found["query"] or "")]
    telling = [password, *(value for name, _, value in pairs if _SECRET_KEY.search(name))]
    telling += [each for each in (*places, *(value for _, _, value in pairs)) if not _is_words(each)]
    if all(map(_is_words, found["path"].split("/"))) and len(found["path"]) >= _SHORTEST_PATH:
        telling.append(found["path"])
    spelled = (way(each) for each in telling for way in (str, unquote, unquote_plus))
    return [Secret(each) for each in dict.fromkeys(spelled) if len(each) >= _SHORTEST_REDACTED]


def _is_words(text: str) -> bool:
    pieces = _BETWEEN_WORDS.split(unquote(text))
    return all(_WORD_OF_A_URL.fullmatch(piece) for piece in pieces if piece)


class Redactor:
    """Takes every secret that was ever read in this process out of a text.

    Texts shaped like keys, JSON web tokens and bearer headers go too: a provider may quote a key
    that was never ours. Ours are found as they stand in URLs as well, with their middle left out
    (`sk-ab***yz`), and cut at the end of a text.
    """

    def __init__(self) -> None:
        self._known: tuple[str, ...] = ()
        self._by_beginning: dict[str, list[str]] = {}
        self._learned: set[str] = set()
        self._learning = threading.Lock()
        self._harmless: set[str] = set()

    def learn(self, secrets: Iterable[Secret]) -> None:
        """Remember secrets; placeholders, and ones shorter than six characters, are ordinary words.

        Any thread may call it; what is known already costs nothing.
        """
        new = [text for secret in secrets if (text := secret.reveal()) not in self._learned]
        if not new:
            return
        with self._learning:
            telling = [text for text in new if _is_telling(text)]
            found = {*self._known, *telling, *(quote(text, safe="", errors="replace") for text in telling)}
            self._known = tuple(sorted(found, key=len, reverse=True))
            self._by_beginning = _by_beginning(self._known)
            self._learned.update(new)
            self._harmless = set()

    def clean(self, text: str) -> str:
        """Return `text` with every secret, and all that looks like one, replaced by `[secret]`.

        Short texts in which there was nothing are remembered: the words of logs come again and again.
        """
        harmless = self._harmless
        if text in harmless:
            return text
        cleaned = self._cleaned(text)
        if cleaned == text and len(text) <= _SHORT and len(harmless) < _MOST_REMEMBERED:
            harmless.add(text)
        return cleaned

    def _cleaned(self, text: str) -> str:
        text = _LOOKS_LIKE_A_TOKEN.sub(rf"\g<before>{_MASK}", self._without_parts(self.own(text)))
        return _BEARER.sub(rf"\1 {_MASK}", _LOOKS_LIKE_A_KEY.sub(_MASK, text))

    def own(self, text: str) -> str:
        """Return `text` with our own secrets replaced, and nothing else: for a model's words."""
        candidates = self._candidates(text)
        for known in candidates:
            text = text.replace(known, _MASK)
        end = len(text)
        begun = min((_begun(known, text, end, _SHORTEST_REDACTED, 0) for known in candidates), default=end)
        return text if begun == end else text[:begun] + _MASK

    def _candidates(self, text: str) -> Sequence[str]:
        """Return the secrets of which at least the beginning stands in a text, longest first.

        A thousand heartbeats are three thousand secrets: short texts are not searched for each of them.
        """
        if len(text) > len(self._known):
            return self._known
        pieces = {text[at : at + _SHORTEST_REDACTED] for at in range(len(text) - _SHORTEST_REDACTED + 1)}
        met = [known for piece in pieces for known in self._by_beginning.get(piece, ())]
        return sorted(met, key=len, reverse=True)

    def _without_parts(self, text: str) -> str:
        """Mask each secret of which the text shows the beginning or the end, with a cut between."""
        kept, done, after = [], 0, 0
        for found in _CUT.finditer(text):
            cut, tail = found.start(), found["tail"].rstrip(".")
            begun = self._begun(text, cut, _SHORTEST_PART, after=after)
            is_ended = len(tail) >= _SHORTEST_PART and any(known.endswith(tail) for known in self._known)
            after = found.start("tail")
            if begun < cut or is_ended:
                kept += [text[done:begun], _MASK]
                done = after = after + len(tail)
        return "".join([*kept, text[done:]])

    def _begun(self, text: str, end: int, shortest: int, *, after: int = 0) -> int:
        """Return where a secret begins of which only the first part stands before `end`; else `end`.

        It begins no earlier than `after`.
        """
        return min((_begun(known, text, end, shortest, after) for known in self._known), default=end)


def _by_beginning(known: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in known:
        found.setdefault(each[:_SHORTEST_REDACTED], []).append(each)
    return found


def _begun(known: str, text: str, end: int, shortest: int, after: int) -> int:
    at = text.find(known[:shortest], max(after, end - len(known)), end)
    while at >= 0 and not known.startswith(text[at:end]):
        at = text.find(known[:shortest], at + 1, end)
    return at if at >= 0 else end


def _is_telling(text: str) -> bool:
    return len(text) >= _SHORTEST_REDACTED and text.lower() not in _PLACEHOLDERS
