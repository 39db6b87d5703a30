"""How a secret looks in what others say: escaped for URLs, code, JSON and HTML, in base64, in hex digits."""

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote

_NEVER_ESCAPED = re.compile(r"[A-Za-z0-9_.\-~]*")  # RFC 3986, 2.3; no form of text escapes these
_KEPT_IN_URLS = (
    "",
    "/",
    "!'()*",  # encodeURIComponent of ECMA-262
    ";/?:@&=+$,#!'()*",  # encodeURI of ECMA-262
    "!$&'()*+,;=:@/",  # a path, RFC 3986, 3.3
)
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_IN_JSON = (  # what encoders escape beside what they must
    ("<>&", "\\u{:04x}"),  # Go's
    ("<>&='", "\\u{:04x}"),  # Gson's
    ("<>&'+`", "\\u{:04X}"),  # .NET's, and its quotes
)
_QUOTES_IN_HTML = (
    ("&quot;", "&#x27;"),  # Python's
    ("&#34;", "&#39;"),  # Go's, MarkupSafe's
    ("&quot;", "&#39;"),
    ("&quot;", "&#039;"),  # PHP's
    ("&quot;", "&apos;"),  # XML's
)
_FIRST_WHOLE = (0, 2, 3)  # of a text that stands behind 0, 1, 2 others of its 3 bytes: its first whole digit


def written(text: str) -> frozenset[str]:
    """Return a secret as it is, and as it is escaped. All are texts that begin and end nearly like it."""
    if _NEVER_ESCAPED.fullmatch(text):
        return frozenset((text,))
    return frozenset((text, *_in_urls(text), *_in_code(text), *_in_html(text)))


def encoded(text: str) -> frozenset[str]:
    """Return a secret in hex digits of either case, and what of it any base64 text that holds it shows.

    A text of base64 (RFC 4648, either alphabet) shows a part of it in one of three ways, as it stands behind
    a multiple of 3 bytes, one more or two more. A digit at each end, made of a neighbour too, is left out.
    """
    data = text.encode("utf-8", "replace")
    digits = data.hex()
    return frozenset((digits, digits.upper(), *_in_base64(data)))


def _in_urls(text: str) -> Iterator[str]:
    for kept in _KEPT_IN_URLS:
        escaped = quote(text, safe=kept, errors="replace")
        for each in (escaped, _ESCAPE.sub(lambda found: found[0].lower(), escaped)):
            yield from (each, each.replace("%20", "+"))  # a form, WHATWG URL Standard, 5.2


def _in_code(text: str) -> Iterator[str]:
    yield repr(text)[1:-1]
    yield text.replace("\\", "\\\\").replace("'", "\\'")
    for plain in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield from (plain, plain.replace("/", "\\/"))
        for which, number in _IN_JSON:
            escaped = plain.translate({ord(each): number.format(ord(each)) for each in which})
            yield from (escaped, escaped.replace('\\"', "\\u0022"))


def _in_html(text: str) -> Iterator[str]:
    base = html.escape(text, quote=False)
    yield base
    for double, single in _QUOTES_IN_HTML:
        each = base.replace('"', double).replace("'", single)
        yield from (each, each.replace("+", "&#43;"))


def _in_base64(data: bytes) -> Iterator[str]:
    for before, first in enumerate(_FIRST_WHOLE):
        digits = base64.b64encode(bytes(before) + data).decode()
        inner = digits[first : (before + len(data)) * 8 // 6]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))
