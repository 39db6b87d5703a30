"""An exception of the SDK or its transport without a response: which failure it is, and its class."""

import asyncio
import ssl
from itertools import pairwise
from typing import Final

import aiohttp
import httpx2
import openai
import pytest
from aiohttp.client_reqrep import ConnectionKey

from jobs import clock
from jobs.names import ProviderName
from jobs.providers.answer import Answer
from jobs.providers.classify import classify
from jobs.providers.client import failure_of
from jobs.providers.rules import Rules

REQUEST: Final = httpx2.Request("POST", "http://localhost:9/v1/chat/completions")
KEY: Final = ConnectionKey("localhost", 9, False, True, None, None, None)
RULES: Final = Rules.load_builtin()


def raised(*chain: BaseException) -> BaseException:
    """Return the first of a chain of exceptions, each raised from the next."""
    for error, cause in pairwise(chain):
        error.__cause__ = cause
    return chain[0]


FAILURES: Final[dict[str, tuple[BaseException, str, str]]] = {
    "a read that timed out": (
        raised(openai.APITimeoutError(REQUEST), httpx2.ReadTimeout("x"), TimeoutError()),
        "timeout",
        "timeout",
    ),
    "the end of our own time": (raised(TimeoutError(), asyncio.CancelledError()), "timeout", "timeout"),
    "a refusal that the transport calls a timeout": (
        raised(
            openai.APITimeoutError(REQUEST),
            httpx2.ConnectTimeout("x"),
            aiohttp.ClientConnectorError(KEY, ConnectionRefusedError()),
        ),
        "connection",
        "connection",
    ),
    "a connection that was reset": (
        raised(openai.APIConnectionError(request=REQUEST), httpx2.ReadError("x"), ConnectionResetError()),
        "connection",
        "connection",
    ),
    "an exception without a cause": (openai.APIConnectionError(request=REQUEST), "connection", "connection"),
    "a certificate that does not verify": (
        raised(
            openai.APIConnectionError(request=REQUEST),
            httpx2.ConnectError("x"),
            ssl.SSLCertVerificationError(),
        ),
        "tls",
        "connection",
    ),
}


@pytest.mark.parametrize(("error", "failure", "error_class"), FAILURES.values(), ids=FAILURES)
def test_an_exception_without_a_response_has_a_class(
    error: BaseException, failure: str, error_class: str
) -> None:
    """The innermost cause tells; there is no status, no header and no body to look at."""
    answer = Answer(None, failure=failure_of(error))
    verdict = classify(answer, ProviderName("openai"), RULES, now=clock.utcnow())

    assert (answer.failure, verdict.error_class) == (failure, error_class)
    assert (verdict.wait, verdict.should_retry) == (None, None)
