"""Webhooks: a signed POST of JSON, in the manner of Standard Webhooks (standardwebhooks.com, version 1)."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from jobs import clock
from jobs.credential import SecretReference
from jobs.delivery import limits
from jobs.delivery.message import Message
from jobs.delivery.outgoing import Outgoing, Reply
from jobs.delivery.signing import PREFIX, signing_key
from jobs.delivery.target import WebhookTarget
from jobs.errors import Undeliverable
from jobs.providers.secrets import SecretReader
from jobs.providers.wait_times import seconds_or_date
from jobs.secret import Secret, secrets_in_headers

_LONGEST_WAIT = timedelta(hours=24).total_seconds()
_SUCCESS, _REDIRECTS, _GONE = range(200, 300), range(300, 400), 410


async def post(target: WebhookTarget, message: Message, *, secrets: SecretReader, outgoing: Outgoing) -> None:
    """Deliver a message to a webhook; raises Undeliverable, and SecretUnreadable where a reference is empty.

    2xx delivers it. A redirect and 410 are for good; for everything else it may be sent again.
    """
    url, headers, key = await asyncio.to_thread(_kept, target, secrets)
    body = await asyncio.to_thread(document, message)
    ours = signed_headers(message.key, body, key, now=clock.utcnow())
    theirs = {name: value for name, value in headers.items() if name.lower() not in map(str.lower, ours)}
    reply = await outgoing.ask(
        "POST",
        url,
        timeout=target.timeout,
        headers={**theirs, **ours},
        content=body,
        allow_link_local=target.allow_link_local,
    )
    _judge(reply, outgoing, now=clock.utcnow())


def _kept(target: WebhookTarget, secrets: SecretReader) -> tuple[Secret, Mapping[str, str], bytes | None]:
    """Return the address, the headers and what signs; the redactor learns them. Blocks: files."""
    url = secrets.unlearned(target.url)
    headers = {name: _header(reference, secrets) for name, reference in target.headers.items()}
    for secret in secrets_in_headers(headers):
        secrets.learn(secret)
    key = _signing_key(secrets.read(target.secret), secrets) if target.secret else None
    return url, headers, key


def _header(reference: SecretReference, secrets: SecretReader) -> str:
    """Return a value: one kept elsewhere is a secret whatever it looks like, one written out may be one."""
    text = secrets.unlearned(reference) if reference.scheme == "literal" else secrets.read(reference)
    return text.reveal()


def document(message: Message) -> bytes:
    """Return a message as JSON: `type`, `timestamp` and `data`. Its text is cut past a megabyte."""

    def written(text: str, was_cut: bool) -> bytes:
        data = {"key": message.key, "subject": message.subject, "text": text, "cut": was_cut, **message.facts}
        whole = {"type": message.what, "timestamp": message.at.isoformat(), "data": data}
        return json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    room = limits.WEBHOOK_BYTES - len(written("", True))
    text, was_cut = limits.fitted(message, room, size=_size_in_json)
    return written(text, was_cut)


def _size_in_json(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())


def signed_headers(key: str, body: bytes, secret: bytes | None, *, now: datetime) -> Mapping[str, str]:
    """Return the headers that tell what a body is; with a secret also its HMAC-SHA256.

    What is signed is `id.timestamp.body`: a receiver recognises what was sent before, and long ago.
    """
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": key,
        "webhook-id": key,
        "webhook-timestamp": str(int(now.timestamp())),
    }
    if secret is not None:
        signed = b".".join((key.encode(), headers["webhook-timestamp"].encode(), body))
        digest = hmac.new(secret, signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _signing_key(secret: Secret, secrets: SecretReader) -> bytes:
    """Return the bytes that sign; the redactor learns them as they are written, with and without `whsec_`."""
    text = secret.reveal()
    if text.startswith(PREFIX):
        secrets.learn(Secret(text.removeprefix(PREFIX)))
    try:
        return signing_key(text)
    except ValueError as exc:
        raise Undeliverable(f"its secret {exc}", permanent=True) from None


def _judge(reply: Reply, outgoing: Outgoing, *, now: datetime) -> None:
    """Raise Undeliverable where an answer does not say that the message was taken."""
    if reply.status in _SUCCESS:
        return
    if reply.status in _REDIRECTS:
        raise Undeliverable(
            f"HTTP {reply.status}: it answers with another address, which is not followed; "
            "name that address in `webhook`",
            permanent=True,
        )
    words = outgoing.told(reply.text)
    said = f"HTTP {reply.status}: {words}" if words else f"HTTP {reply.status}"
    wait = seconds_or_date(reply.headers.get("retry-after"), now=now)
    raise Undeliverable(said, permanent=reply.status == _GONE, retry_after=_bounded(wait))


def _bounded(seconds: Any) -> timedelta | None:
    return timedelta(seconds=min(seconds, _LONGEST_WAIT)) if seconds is not None and seconds > 0 else None
