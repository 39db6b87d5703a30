"""What providers say in the randomised world: recorded answers of each, plain ones of all, by weight."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from jobs.providers.answer import Answer, Origin, TransportFailure
from jobs.request import ApiMode

RECORDED = Path(__file__).parents[2] / "provider_errors"
SHORTEST_WAIT = 11  # seconds: a shorter one would be waited for
_LARGEST = 8_000


@dataclass(frozen=True, slots=True)
class Line:
    """An answer that can be given again and again; `expected` is its class, where a recording states one."""

    status: int | None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    failure: TransportFailure | None = None
    expected: str | None = None
    short_hint: bool = False

    def answer(self, request_id: str, origin: Origin = Origin.MODEL, *, left: bool = True) -> Answer:
        """Return it with an id of its own, by which it is found again in the ledger."""
        if self.status is None:
            return Answer(None, failure=self.failure, origin=origin, left=left, detail="no answer")
        return Answer(self.status, {**self.headers, "x-request-id": request_id}, self.body, origin=origin)


def _error(status: int, message: str, *, headers: Mapping[str, str] | None = None, **fields: Any) -> Line:
    body = json.dumps({"error": {"message": message, **fields}}).encode()
    return Line(status, body, headers or {}, short_hint="retry-after-ms" in (headers or {}))


PLAIN: tuple[tuple[int, Line], ...] = (
    (4, _error(401, "Incorrect API key provided", code="invalid_api_key")),
    (1, _error(401, "Your account is gone", code="account_deactivated")),
    (6, _error(403, "You may not do this")),
    (8, _error(429, "Too many requests")),
    (5, _error(429, "Too many requests", headers={"retry-after": "600"})),
    (4, _error(429, "Too many requests", headers={"retry-after-ms": "15"})),
    (6, _error(402, "Insufficient balance")),
    (2, _error(503, "The server is busy")),
    (2, _error(500, "Something went wrong")),
    (2, Line(None, failure=TransportFailure.TIMEOUT)),
    (1, Line(None, failure=TransportFailure.CONNECTION)),
    (2, Line(None, failure=TransportFailure.TLS)),
    (4, Line(403, b"<html><body>challenge</body></html>", {"content-type": "text/html"})),
    (4, Line(200, b'{"error": {"message": "upstream is out of credits", "code": 402}}')),
    (3, Line(200, b'{"choices": []}')),
    (3, _error(400, "Too long", code="context_length_exceeded")),
    (2, _error(413, "Request entity too large")),
    (2, _error(400, "Flagged", code="content_filter")),
    (5, _error(404, "The model does not exist", code="model_not_found")),
    (4, _error(400, "Unknown parameter")),
    (4, _error(418, "I am a teapot")),
)
OUTAGE: tuple[Line, ...] = (
    Line(403, b"<html><body>challenge</body></html>", {"content-type": "text/html"}),
    Line(None, failure=TransportFailure.TIMEOUT),
    Line(None, failure=TransportFailure.TLS),
)
GOOD_IN_100 = 64
RECORDED_IN_100 = 25
# What is said seldom: the first three are backed off from for real, the last closes until an operator comes.
_SELDOM = frozenset({"overloaded", "server_error", "connection", "auth_dead"})


@cache
def recorded(provider: str) -> tuple[Line, ...]:
    """Return what is recorded of a provider's model endpoint, of a size that is quick to read."""
    lines = []
    for path in sorted((RECORDED / provider).glob("*.yaml")):
        case = yaml.load(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        expect = case["expect"]
        waits = expect.get("wait_seconds", SHORTEST_WAIT) < SHORTEST_WAIT
        is_usable = isinstance(case.get("status"), int) and len(case.get("body", "")) < _LARGEST
        if case.get("origin", "model") != "model" or expect["class"] == "none" or waits or not is_usable:
            continue
        headers = {name: str(value) for name, value in case.get("headers", {}).items()}
        lines.append(Line(case["status"], case["body"].encode(), headers, expected=expect["class"]))
    return tuple(lines)


def good(text: str, mode: ApiMode) -> Line:
    """Return a proved answer in the shape of a mode."""
    if mode is ApiMode.RESPONSES:
        content = [{"type": "output_text", "text": text}]
        document: dict[str, Any] = {
            "object": "response",
            "status": "completed",
            "output": [{"type": "message", "role": "assistant", "status": "completed", "content": content}],
        }
    else:
        message = {"role": "assistant", "content": text}
        document = {
            "object": "chat.completion",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }
    return Line(200, json.dumps(document).encode())


def failure_of(rng: random.Random, provider: str) -> Line:
    """Return something else than an answer: one of the provider's own recorded ones, or a plain one."""
    own = recorded(provider)
    if own and rng.randrange(100) < RECORDED_IN_100:
        line = rng.choice(own)
        if line.expected not in _SELDOM or rng.random() < 0.1:
            return line
    weights = [weight for weight, _ in PLAIN]
    return rng.choices([line for _, line in PLAIN], weights)[0]


TOKEN_REFUSALS: tuple[tuple[int, Line], ...] = (
    (6, Line(400, b'{"error": "invalid_grant", "error_description": "The grant has ended"}')),
    (3, Line(401)),
    (4, Line(500, b"oops")),
    (3, Line(429, b'{"error": "slow_down"}')),
    (2, Line(200, b"<html></html>")),
    (2, Line(504)),
    (3, Line(None, failure=TransportFailure.TIMEOUT)),
    (3, Line(None, failure=TransportFailure.CONNECTION)),
)
GRANTED_IN_100 = 75


def grant(access: str, refresh: str, *, expires_in: int) -> Line:
    """Return new tokens (RFC 6749 section 5.1)."""
    tokens = {"access_token": access, "refresh_token": refresh, "expires_in": expires_in}
    return Line(200, json.dumps(tokens).encode(), {"content-type": "application/json"})
