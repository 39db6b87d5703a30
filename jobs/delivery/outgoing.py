"""The way out for webhooks and heartbeats: one guarded HTTP client, which asks only whom it may."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import MappingProxyType
from urllib.parse import urlencode

import httpx2

from jobs import clock
from jobs.delivery.addresses import refusal_of
from jobs.delivery.aside import Aside
from jobs.errors import Undeliverable
from jobs.providers.header_fields import header_value
from jobs.secret import Redactor, Secret, secrets_in_url

LARGEST_ANSWER = 64 * 1024
LONGEST_TOLD = 200
_CONNECT_TIMEOUT = 5.0
_READING_TIME = 2.0  # seconds for the body of an answer whose status is known: that decides
_MOST_ADDRESSES = 4
_PORTS = MappingProxyType({"http": 80, "https": 443})
_LAST_PORT = 65_535
_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout)
_HEADERS = MappingProxyType({"User-Agent": "promptd", "Accept": "*/*"})
_OURS = MappingProxyType({"Accept-Encoding": "identity", "Connection": "close"})

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → its addresses as text, in the order in which they are to be tried; raises OSError."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an HTTP server has answered, whatever its status; header names are lower-case.

    `text` is the beginning of the body, at most 64 kB of it; it may hold anything: tell it by `told`.
    """

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class _Question:
    """A request as it is sent to each address that is tried."""

    method: str
    url: httpx2.URL
    headers: Mapping[str, str]
    content: bytes
    timeout: float


class Outgoing:
    """Asks HTTP servers by URL. Made without a loop, used inside one, closed there by `close()`.

    Environment variables that name proxies are not heeded: a proxy would look a name up once more, and where
    to is judged here. Certificates are checked against the system's store, or SSL_CERT_FILE.
    """

    def __init__(self, redactor: Redactor, *, look_up: LookUp | None = None) -> None:
        self._redactor = redactor
        self._look_up = look_up or _SystemsNames().look_up

    async def ask(
        self,
        method: str,
        url: Secret,
        *,
        timeout: timedelta,
        headers: Mapping[str, str] = MappingProxyType({}),
        content: bytes = b"",
        query: Mapping[str, str] = MappingProxyType({}),
        allow_link_local: bool = False,
    ) -> Reply:
        """Send one request and return what came back, in at most `timeout`.

        Raises Undeliverable, without a secret in it, where no answer came, or where the URL leads to a place
        that is never asked. The name is looked up once, and the addresses that were judged are connected to.
        No redirect is followed: it is a Reply like any other. The redactor learns the URL's secrets first;
        `query` goes behind what the URL asks for already, and is no secret: it may be another one every time.
        """
        self._redactor.learn(secrets_in_url(url.reveal()))
        asked, seconds = _with(query, _parsed(url)), timeout.total_seconds()
        question = _Question(method, asked, _sendable(headers), content, seconds)
        host = asked.raw_host.decode("ascii")
        deadline = clock.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._addresses(asked, host, allow_link_local=allow_link_local)
                response = await self._answered(question, host, addresses)
        except TimeoutError as exc:
            raise Undeliverable(f"{host} gave no answer within {seconds:g} s") from exc
        try:
            return await _read(response, min(_READING_TIME, deadline - clock.monotonic()))
        finally:
            await response.aclose()

    def told(self, text: str) -> str:
        """Return the beginning of a text that came from outside: one line, without secrets."""
        line = "".join(each if each.isprintable() else " " for each in text[: 10 * LONGEST_TOLD])
        return self._redactor.clean(" ".join(line.split()))[:LONGEST_TOLD]

    async def close(self) -> None:
        """Close every connection."""
        if "_http" in self.__dict__:
            await self._http.aclose()

    @cached_property
    def _http(self) -> httpx2.AsyncClient:
        """One client; no connection is kept, since one to an address may have been made for another name."""
        return httpx2.AsyncClient(
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    async def _addresses(self, url: httpx2.URL, host: str, *, allow_link_local: bool) -> Sequence[str]:
        """Return the addresses of a host; raises Undeliverable where any of them is never asked."""
        port = url.port or _PORTS[url.scheme]
        try:
            found = await self._look_up(host, port)
            refused = [] if allow_link_local else [(each, refusal_of(each)) for each in found]
        except (OSError, UnicodeError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else "it is no name of a host"
            raise Undeliverable(f"the address of {host} cannot be looked up: {self.told(why)}") from exc
        for address, what in refused:
            if what is not None:
                raise Undeliverable(
                    f"{host} leads to {address}, which is {what} and is not asked; "
                    "set `allow_link_local: true` where that is meant",
                    permanent=address == host,
                )
        if not found:
            raise Undeliverable(f"{host} has no address")
        return found[:_MOST_ADDRESSES]

    async def _answered(self, question: _Question, host: str, addresses: Sequence[str]) -> httpx2.Response:
        """Return the head of an answer, its body unread.

        Asks the first address that takes a connection; nothing is sent to those that take none.
        """
        *others, last = addresses
        try:
            for address in others:
                with suppress(*_NOT_CONNECTED):
                    return await self._asked(question, address)
            return await self._asked(question, last)
        except httpx2.TimeoutException as exc:
            raise Undeliverable(f"{host} did not answer in time") from exc
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as exc:
            why = self.told(str(exc)) or type(exc).__name__
            raise Undeliverable(f"{host} could not be asked: {why}") from exc

    async def _asked(self, question: _Question, address: str) -> httpx2.Response:
        """Send the request to this very address, as if it were for the name: Host, SNI and certificate."""
        url, headers = question.url, httpx2.Headers(_HEADERS)
        headers.update(question.headers)
        headers.update({**_OURS, "Host": url.netloc.decode("ascii")})
        request = self._http.build_request(
            question.method,
            url.copy_with(host=address),
            headers=headers,
            content=question.content,
            timeout=httpx2.Timeout(None, connect=min(_CONNECT_TIMEOUT, question.timeout / 2)),
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        return await self._http.send(request, stream=True)


class _SystemsNames:
    """Looks names up as the system does; a name server that does not answer holds nobody else up."""

    def __init__(self) -> None:
        self._aside = Aside()

    async def look_up(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host, each once; whoever asks for it meanwhile is told the same."""
        return await self._aside.share((host, port), _found, host, port)


def _found(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _parsed(url: Secret) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url.reveal())
    except httpx2.InvalidURL:
        raise Undeliverable("its URL cannot be read; write http:// or https://", permanent=True) from None
    port = parsed.port if parsed.port is not None else _PORTS.get(parsed.scheme, 0)
    if parsed.scheme not in _PORTS or not parsed.host or not 0 < port <= _LAST_PORT:
        raise Undeliverable("its URL leads nowhere; write http:// or https:// and a host", permanent=True)
    if parsed.userinfo:
        raise Undeliverable(
            "its URL carries a login; give an `Authorization` header as a reference instead", permanent=True
        )
    return parsed.copy_with(fragment=None)


def _with(query: Mapping[str, str], url: httpx2.URL) -> httpx2.URL:
    pairs = (url.query, urlencode(query).encode("ascii"))
    return url.copy_with(query=b"&".join(filter(None, pairs))) if query else url


def _sendable(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        try:
            header_value(value)
        except ValueError as exc:
            raise Undeliverable(f"the header {name} {exc}", permanent=True) from None
    return headers


async def _read(response: httpx2.Response, seconds: float) -> Reply:
    """Read the beginning of an answer; its status counts, however its body ends, or does not."""
    body = bytearray()
    with suppress(httpx2.HTTPError, TimeoutError):
        async with asyncio.timeout(seconds):
            async for piece in response.aiter_raw():
                body += piece[: LARGEST_ANSWER - len(body)]
                if len(body) >= LARGEST_ANSWER:
                    break
    headers = MappingProxyType({name.lower(): value for name, value in response.headers.items()})
    return Reply(response.status_code, headers, body.decode("utf-8", "replace"))
