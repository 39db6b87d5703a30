"""The way out: one openai SDK client and one connection pool for every provider; exceptions end here."""

import asyncio
import json
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import aiohttp
import httpx2

from jobs.attempt import Attempt
from jobs.providers.answer import Answer, Origin, TransportFailure
from jobs.providers.api_modes import MODES, Mode, sse_events
from jobs.providers.api_modes.reading import is_a_thicket
from jobs.providers.header_fields import header_value
from jobs.providers.registry import Provider
from jobs.providers.sdk import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AsyncStream,
    DefaultAioHttpClient,
    Omit,
)
from jobs.request import Request

LARGEST_BODY = 16 * 1024 * 1024
LARGEST_ERROR = 2 * 1024 * 1024
ROOM = 32 * 1024 * 1024
_SMALL = 1024 * 1024
CONNECT_TIMEOUT = 10.0
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_FIRST_ERROR = 400
_USER_AGENT = "promptd"
_MOST_CONNECTIONS = 4096
_KEEP_ALIVE = 30.0
_NO_KEY = "no-key-required"
_TIMEOUTS = (TimeoutError, httpx2.TimeoutException, aiohttp.ServerTimeoutError)
_TLS = (ssl.SSLCertVerificationError, aiohttp.ClientConnectorCertificateError)


class BodyTooLarge(httpx2.RequestError):
    """A body went past the limit; the rest is not read."""


class _Sdk(AsyncOpenAI):
    """The SDK without what it takes from OPENAI_* variables: it would send that to every provider."""

    @property
    def default_headers(self) -> dict[str, str | Omit]:
        """Only what each provider may know of us; the attempt adds its own."""
        return {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
        }


@dataclass(slots=True)
class _Room:
    """How many bytes large bodies may still take, all of those that are being read together.

    Reading joins the pieces of a body, so for a moment twice as much is taken.
    """

    left: int = ROOM


class _Bounded(httpx2.AsyncByteStream):
    """A body, unpacked, that ends where it passes the limit: with an error, or just cut.

    An answer that is an error is cut: its status and what was read tell enough. What is beyond a megabyte
    takes of the room that there is for all; where none is left, the limit is reached sooner.
    """

    def __init__(self, stream: httpx2.AsyncByteStream, encoding: str, room: _Room, *, cut: bool) -> None:
        self._stream, self._room, self._cut = stream, room, cut
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB) if encoding else None
        self._taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = LARGEST_ERROR if self._cut else LARGEST_BODY
        free = _SMALL
        try:
            async for packed in self._stream:
                chunk = self._inflate.decompress(packed, left + 1) if self._inflate else packed
                left -= len(chunk)
                free -= len(chunk)
                if left < 0 or not self._takes(min(len(chunk), -free)):
                    if self._cut:
                        return
                    raise BodyTooLarge(f"the answer is larger than {LARGEST_BODY} bytes")
                yield chunk
        finally:
            self._room.left += self._taken
            self._taken = 0

    def _takes(self, size: int) -> bool:
        if size <= 0:
            return True
        if size > self._room.left:
            return False
        self._room.left -= size
        self._taken += size
        return True

    async def aclose(self) -> None:
        await self._stream.aclose()


class Client:
    """Asks providers and token endpoints. Opened inside a running loop, closed by `close()`."""

    def __init__(self) -> None:
        self._room, self._one_large = _Room(), asyncio.Semaphore(1)
        # Keys go to the target's host only: a redirect is an answer, never followed.
        self._http = DefaultAioHttpClient(
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # one would tie credentials together
            event_hooks={"response": [self._bound]},
            limits=httpx2.Limits(max_connections=_MOST_CONNECTIONS, keepalive_expiry=_KEEP_ALIVE),
        )
        self._sdk = _Sdk(
            api_key=_NO_KEY, base_url="http://localhost:9", max_retries=0, http_client=self._http
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._sdk.close()

    async def ask(
        self, attempt: Attempt, provider: Provider, request: Request, *, timeout: timedelta
    ) -> Answer:
        """Send one request and return what came back; never raises for what a server does.

        `timeout` bounds the whole exchange, whatever the server trickles. A streamed answer is read to
        its end and returned as the document that its events add up to. What cannot be written is not sent.
        """
        mode = MODES[attempt.api_mode]
        if not provider.output_limit:
            request = replace(request, parameters=replace(request.parameters, max_output_tokens=None))
        body = mode.body(request, model=attempt.target.model, stream=provider.stream, store=provider.store)
        try:
            content, headers = _written(body), _headers(attempt, provider)
        except (ValueError, TypeError, RecursionError) as exc:
            return Answer(None, failure=TransportFailure.UNSENDABLE, left=False, detail=str(exc))
        options: Any = {
            "headers": headers,
            "timeout": httpx2.Timeout(timeout.total_seconds(), connect=CONNECT_TIMEOUT),
        }
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                response = await self._sdk.post(
                    attempt.base_url + mode.PATH,
                    cast_to=httpx2.Response,
                    content=content,
                    options=options,
                    stream=True,
                    stream_cls=AsyncStream[Any],
                )
                answer = await _read(response)  # type: ignore[arg-type]
        except APIStatusError as exc:
            return _answer(exc.response.status_code, exc.response.headers, exc.response.content)
        except Exception as exc:  # whatever a server can make the transport raise is no answer
            return _no_answer(exc, timeout)
        return await self._settled(answer, mode) if _is_event_stream(answer.headers) else answer

    async def _settled(self, answer: Answer, mode: Mode) -> Answer:
        """Return a stream that has ended as the document that its events add up to; one large at a time."""
        if len(answer.body) <= _SMALL:
            return await asyncio.to_thread(_settled_stream, answer, mode)
        self._room.left -= len(answer.body)
        try:
            async with self._one_large:
                return await asyncio.to_thread(_settled_stream, answer, mode)
        finally:
            self._room.left += len(answer.body)

    async def _bound(self, response: httpx2.Response) -> None:
        """Bound what is read of an answer, unpacked: it comes packed although nobody asked for that."""
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        encoding = response.headers.pop("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise httpx2.DecodingError(f"the answer is packed as {encoding!r}, which nobody asked for")
        packed = "" if encoding == "identity" else encoding
        is_error = response.status_code >= _FIRST_ERROR
        response.stream = _Bounded(response.stream, packed, self._room, cut=is_error)

    async def post_form(self, url: str, form: Mapping[str, str], *, timeout: timedelta) -> Answer:
        """Send a form to a token endpoint (RFC 6749 section 3.2) and return what came back."""
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                response = await self._http.post(url, data=dict(form), headers={"Accept": "application/json"})
        except Exception as exc:  # as in `ask`
            return _no_answer(exc, timeout, Origin.TOKEN)
        return _answer(response.status_code, response.headers, response.content, Origin.TOKEN)


def _written(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON; raises ValueError or TypeError for what JSON and UTF-8 do not have."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise ValueError("the request holds characters that are no text") from None


def _headers(attempt: Attempt, provider: Provider) -> dict[str, str]:
    """Return the headers of a request; raises ValueError, which quotes none, for one that cannot be sent."""
    headers = {"Accept-Encoding": "identity", **provider.headers}
    if provider.account_header and attempt.account_id:
        headers[provider.account_header] = attempt.account_id
    key = attempt.secret.reveal() if attempt.secret else _NO_KEY
    headers["Authorization"] = f"Bearer {key}"
    for name, value in headers.items():
        try:
            header_value(value)
        except ValueError as exc:
            raise ValueError(f"the header {name} {exc}") from None
    return headers


async def _read(response: httpx2.Response) -> Answer:
    try:
        body = await response.aread()
    except BodyTooLarge:
        body = b""  # nothing that can be proved an answer
    finally:
        await response.aclose()
    return _answer(response.status_code, response.headers, body)


def _answer(status: int, headers: Mapping[str, str], body: bytes, origin: Origin = Origin.MODEL) -> Answer:
    is_read_event_by_event = status < _FIRST_ERROR and _is_event_stream(headers)
    if not is_read_event_by_event and is_a_thicket(body):
        body = b""  # nothing that is worth the memory
    return Answer(status, {name.lower(): value for name, value in headers.items()}, body, origin=origin)


def _no_answer(error: BaseException, timeout: timedelta, origin: Origin = Origin.MODEL) -> Answer:
    causes = _causes(error)
    failure = failure_of(error)
    never_connected = any(isinstance(cause, aiohttp.ClientConnectorError) for cause in causes)
    told = next((str(each) for each in causes if isinstance(each, aiohttp.ClientError) and str(each)), "")
    detail = (
        f"no answer within {timeout.total_seconds():.3g} s"
        if failure is TransportFailure.TIMEOUT
        else told or str(causes[-1]) or type(causes[-1]).__name__
    )
    return Answer(None, failure=failure, origin=origin, left=not never_connected, detail=detail)


def _is_event_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


def _settled_stream(answer: Answer, mode: Mode) -> Answer:
    document = mode.document_of(sse_events(answer.body))
    return replace(answer, body=json.dumps(document).encode())


def failure_of(error: BaseException) -> TransportFailure:
    """Say why no answer came, by the innermost cause that tells.

    The aiohttp transport reports a refused connection as a connect timeout, which the SDK reports as
    APITimeoutError: only the chain of causes tells the two apart.
    """
    causes = list(_causes(error))
    if any(isinstance(cause, _TLS) for cause in causes):
        return TransportFailure.TLS
    # asyncio.timeout raises its TimeoutError from the cancellation with which it ends the work.
    ours = (APITimeoutError, APIConnectionError, httpx2.RequestError, asyncio.CancelledError)
    innermost = next((cause for cause in reversed(causes) if not isinstance(cause, ours)), causes[-1])
    if isinstance(innermost, _TIMEOUTS):
        return TransportFailure.TIMEOUT
    return TransportFailure.CONNECTION


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    return causes
