"""Logging in with a browser on this machine: a code with PKCE (RFC 7636), brought back over loopback."""

import asyncio
import hmac
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

from authlib.common.security import generate_token
from authlib.oauth2.rfc6749 import AccessDeniedError
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from jobs import clock
from jobs.credential import OAuthClient
from jobs.providers.client import Client
from jobs.providers.token_grant import Grant, LoginFailed, granted, refusal_of
from jobs.secret import Redactor, Secret

LONGEST_WAIT = timedelta(minutes=10)
REQUEST_TIMEOUT = timedelta(seconds=30)
_HOST = "127.0.0.1"  # RFC 8252, 7.3: the address, not the name, and any free port
_PATH = "/callback"
_LONGEST_HEAD = 16 * 1024
_HEAD_TIMEOUT = 10.0
_VERIFIER_CHARACTERS = 64  # 43 to 128 (RFC 7636, 4.1)


@dataclass(frozen=True, slots=True)
class _Returned:
    """What the browser brought back: a code, or the error that the person's decision led to."""

    code: str | None
    error: str | None


class BrowserLogin:
    """One login of one client. Nobody but the browser's redirect with our `state` is listened to."""

    def __init__(self, client: Client, oauth: OAuthClient, redactor: Redactor) -> None:
        if oauth.client_id is None or oauth.authorization_url is None:
            raise ValueError("a login in a browser needs a client id and an authorization URL")
        self._client, self._oauth, self._redactor = client, oauth, redactor
        self._client_id, self._page = oauth.client_id, oauth.authorization_url
        self._state, self._verifier = generate_token(32), generate_token(_VERIFIER_CHARACTERS)
        redactor.learn([Secret(self._state), Secret(self._verifier)])
        self._returned: asyncio.Future[_Returned] = asyncio.get_running_loop().create_future()

    async def run(self, show: Callable[[str], None]) -> Grant:
        """Have the page opened that `show` is given, and return what is granted; raises LoginFailed."""
        async with self._listening() as redirect_uri:
            show(self._address(redirect_uri))
            try:
                async with asyncio.timeout(LONGEST_WAIT.total_seconds()):
                    returned = await self._returned
            except TimeoutError as exc:
                raise LoginFailed("nobody logged in within 10 minutes; try again") from exc
            if returned.code is None:
                denied = returned.error == AccessDeniedError.error
                why = "the login was denied" if denied else f"the login was not granted: {returned.error}"
                raise LoginFailed(f"{self._redactor.clean(why)}; nothing was stored")
            return await self._exchange(returned.code, redirect_uri)

    def _address(self, redirect_uri: str) -> str:
        address: str = prepare_grant_uri(
            self._page,
            self._client_id,
            "code",
            redirect_uri=redirect_uri,
            scope=list(self._oauth.scopes),
            state=self._state,
            code_challenge=create_s256_code_challenge(self._verifier),
            code_challenge_method="S256",
        )
        return address

    async def _exchange(self, code: str, redirect_uri: str) -> Grant:
        """Exchange the code for tokens (RFC 6749 section 4.1.3, with RFC 7636's verifier)."""
        self._redactor.learn([Secret(code)])
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._client_id,
            "code_verifier": self._verifier,
        }
        answer = await self._client.post_form(self._oauth.token_url, form, timeout=REQUEST_TIMEOUT)
        grant = granted(answer, now=clock.utcnow())
        if grant is None:
            raise LoginFailed(f"the login was not granted: {refusal_of(answer, self._redactor)}")
        self._redactor.learn(grant.secrets)
        return grant

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[str]:
        """Listen on loopback while the body runs; yields the address that the browser is sent back to."""
        server = await asyncio.start_server(self._serve, _HOST, 0, limit=_LONGEST_HEAD)
        try:
            yield f"http://{_HOST}:{server.sockets[0].getsockname()[1]}{_PATH}"
        finally:
            server.close()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                status, said = self._judged(head.partition(b"\r\n")[0].decode("latin-1"))
                body = said.encode()
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            return  # no browser of ours: the one that is waited for may still come
        finally:
            writer.close()

    def _judged(self, line: str) -> tuple[str, str]:
        """Take what a request line brings; return the status and the words that it is answered with."""
        method, _, rest = line.partition(" ")
        target = urlsplit(rest.partition(" ")[0])
        fields = {name: values[0] for name, values in parse_qs(target.query).items() if len(values) == 1}
        if method != "GET" or target.path != _PATH:
            return "404 Not Found", "There is nothing here."
        if not hmac.compare_digest(fields.get("state", "").encode(), self._state.encode()):
            return "400 Bad Request", "This is not the login that promptd waits for."
        error = "".join(each for each in fields.get("error", "no code came back") if each.isprintable())[:200]
        if not self._returned.done():
            self._returned.set_result(_Returned(fields.get("code"), error))
        return "200 OK", "promptd has what it waited for, and says in its terminal what came of it."
