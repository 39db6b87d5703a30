"""Apprise: Slack, Telegram, e-mail and some hundred more, in a child process that is ended at its time."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs.commands import Commands, Given
from jobs.definition import Command
from jobs.delivery import limits
from jobs.delivery.message import Message
from jobs.delivery.target import AppriseTarget
from jobs.errors import CommandFailed, Undeliverable
from jobs.secret import Redactor, Secret, secrets_in_url

_CHILD = (sys.executable, "-P", "-m", "jobs.delivery.apprise_child")
_NAMED = f"the command {sys.executable!r}"
_MOST_PRINTED = 64 * 1024
_LONGEST_WHY = 400
_KEPT = frozenset(
    {
        *("PATH", "PYTHONPATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    }
)
"""What the child may know of our environment: how to find programs, certificates and the way out."""

_HOME = "/nonexistent"  # no .netrc, no configuration and no plugins of somebody's


async def notify(
    target: AppriseTarget, message: Message, *, url: Secret, commands: Commands, redactor: Redactor
) -> None:
    """Deliver a message by Apprise; raises Undeliverable, and CommandFailed where the child has no answer.

    Address and text go by standard input: neither stands in the list of processes, or in an environment.
    """
    redactor.learn(secrets_in_url(url.reveal()))
    child = Command(_CHILD, timeout=target.timeout, max_bytes=_MOST_PRINTED)
    alone = replace(commands, environ=environment(commands.environ))
    order = await asyncio.to_thread(_order, target, message, url)
    try:
        answer = await alone.answer_of(child, given=Given(order))
    except CommandFailed as exc:
        raise Undeliverable(str(exc).replace(_NAMED, "Apprise")) from exc
    _judge(answer, redactor)


def environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the part of an environment that the child gets: nobody's home, and no secret."""
    return {**{name: value for name, value in environ.items() if name in _KEPT}, "HOME": _HOME}


def _order(target: AppriseTarget, message: Message, url: Secret) -> bytes:
    body, _ = limits.fitted(message, limits.APPRISE_BYTES)
    order = {
        "url": url.reveal(),
        "subject": message.subject,
        "body": body,
        "characters": len(message.body),
        "whole_text": message.whole_text,
        "seconds": target.timeout.total_seconds(),
    }
    return json.dumps(order).encode()


def _judge(answer: bytes, redactor: Redactor) -> None:
    """Raise Undeliverable where the child's answer does not say that the message was taken."""
    match _result(answer):
        case {"delivered": True}:
            return
        case {"delivered": False, "why": str(why), "permanent": bool(permanent)}:
            line = "".join(each if each.isprintable() else " " for each in why)
            raise Undeliverable(f"Apprise: {redactor.clean(line)[:_LONGEST_WHY]}", permanent=permanent)
        case _:
            raise Undeliverable("Apprise ended without an answer")


def _result(answer: bytes) -> Any:
    """Return what the child has answered, None where that cannot be read."""
    try:
        return json.loads(answer)
    except ValueError:
        return None
