"""A mail server in the loop of a test, which keeps what it is sent and can be told to refuse or to hang."""

import asyncio
import email
import email.policy
import ssl
import warnings
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

HANGS = "hangs"


class MailPeer:
    """Answers the first mail by the first of `answers`, and so on; the last stays. `HANGS` never answers.

    With `login` nobody sends without it.
    """

    def __init__(
        self,
        *answers: str,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        self._answers = answers or ("250 taken",)
        self._tls, self._login = tls, login
        self.asked = 0
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []
        self.is_asked = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    def url(self, rest: str = "", *, login: str = "") -> str:
        """Return the Apprise URL that sends mail by this server."""
        scheme, mode = ("mailtos", "ssl") if self._tls else ("mailto", "insecure")
        people = "from=promptd@example.org&to=ops@example.org"
        return f"{scheme}://{login}127.0.0.1:{self.port}/?{people}&mode={mode}{rest}"

    def say(self, answer: str) -> None:
        """Answer so from now on."""
        self._answers = (answer,)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Take a mail, or not: aiosmtpd calls this."""
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        self.is_asked.set()
        if answer == HANGS:
            await asyncio.Event().wait()
        if answer.startswith("2"):
            content = envelope.content
            assert isinstance(content, bytes)
            self.mails.append(email.message_from_bytes(content, policy=email.policy.default))  # type: ignore[arg-type]
            self.envelopes.append(envelope)
        return answer

    def _session(self) -> SMTP:
        check: Callable[..., AuthResult] | None = self._check if self._login else None
        with warnings.catch_warnings(action="ignore"):  # that a login without TLS can be read by others
            return SMTP(
                self,
                hostname="mail.test",
                authenticator=check,
                auth_required=check is not None,
                auth_require_tls=False,
                enable_SMTPUTF8=True,
            )

    def _check(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any
    ) -> AuthResult:
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=given == self._login, handled=False, auth_data=data)
