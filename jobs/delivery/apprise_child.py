"""The child process in which Apprise works: reads one order from standard input, prints what became of it.

`{"url", "subject", "body", "whole_text", "seconds"}` in, `{"delivered", "why", "permanent"}` out, both JSON.
Only the address that it is given is used: no configuration, no plugins of others, nothing kept on a disk;
and nothing is asked that webhooks never ask.
"""

import json
import logging
import os
import resource
import signal
import sys
from typing import Any, TextIO

import apprise
from apprise.attachment.memory import AttachMemory
from apprise.common import OverflowMode, PersistentStoreMode
from apprise.conversion import convert_between

from jobs.delivery.addresses import refusal_in_url
from jobs.delivery.guarded_sockets import guard
from jobs.delivery.limits import beginning, cut_note

_MOST_MEMORY = 2 * 1024**3  # bytes of addresses: an endless answer ends this process, not the machine
_MOST_PIECES = 10
_LONGEST_WORD = 300
_LONGEST_WHY = 4_000
_TELLING = ("Socket Exception", "Response Details", "SMTP")
"""How Apprise begins those of its debugging lines that say what went wrong: nothing else does."""


class _Words(logging.Handler):
    """Keeps what Apprise says about a failure."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING or text.startswith(_TELLING):
            self.said.append(" ".join(text[: 4 * _LONGEST_WORD].split())[:_LONGEST_WORD])


def main() -> None:
    """Do what standard input asks for; whatever goes wrong unforeseen ends with a traceback and 1."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a plugin prints is no answer
    order = json.load(sys.stdin)
    _bound(order["seconds"])
    guard()
    words = _Words()
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(words)
    _tell(answer, _sent(order, words))


def _bound(seconds: float) -> None:
    """End by ourselves where whoever started us has gone, and take no more than is ours."""
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
    for limit, most in ((resource.RLIMIT_AS, _MOST_MEMORY), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(limit)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))


def _tell(stream: TextIO, result: dict[str, Any]) -> None:
    with stream:
        json.dump({**result, "why": result["why"][:_LONGEST_WHY]}, stream)


def _sent(order: dict[str, Any], words: _Words) -> dict[str, Any]:
    what = refusal_in_url(order["url"])
    if what is not None:
        why = f"its URL names an address that is not asked, {what}"
        return {"delivered": False, "why": why, "permanent": True}
    service = service_of(order["url"])
    if service is None:
        why = "; ".join(words.said) or "Apprise does not know this kind of URL"
        return {"delivered": False, "why": why, "permanent": True}
    body, attachment = fitted(service, order)
    sender = apprise.Apprise(asset=service.asset)
    sender.add(service)
    delivered = sender.notify(
        body=body,
        title=order["subject"],
        attach=attachment,
        body_format=apprise.NotifyFormat.TEXT,
    )
    why = "; ".join(dict.fromkeys(words.said)) or "Apprise does not say why"
    return {"delivered": bool(delivered), "why": "" if delivered else why, "permanent": False}


def service_of(url: str) -> Any:
    """Return the service behind a URL, None where there is none. It tries once: others try again."""
    asset = apprise.AppriseAsset(
        app_id="promptd",
        app_desc="promptd",
        app_url="",
        async_mode=False,
        interpret_escapes=False,
        storage_mode=PersistentStoreMode.MEMORY,
        http_redirects=False,
    )
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is not None:
        service.retry, service.optional = 0, False
    return service


def fitted(service: Any, order: dict[str, Any]) -> tuple[str, Any]:
    """Return the text as the service takes it, and an attachment: the whole text, where it is too long.

    Where the URL asks for it (`?overflow=split`) Apprise sends a long text in pieces, ten at most.
    """
    body, subject = order["body"], order["subject"]
    pieces = _MOST_PIECES if service.overflow_mode == OverflowMode.SPLIT else 1
    in_body = service.title_maxlen <= 0 or service.overflow_amalgamate_title
    most = pieces * (service.body_maxlen - (len(subject) + 20 if in_body else 0))

    shape = service.resolve_format(apprise.NotifyFormat.TEXT)

    def size(text: str) -> int:
        return len(convert_between(apprise.NotifyFormat.TEXT, shape, text))  # type: ignore[no-untyped-call]

    if size(body) <= most:
        return body, None
    note, attachment = cut_note(len(body), order["whole_text"]), None
    if service.attachment_support:
        note = f"\n\n[cut here: the whole text, {len(body):,} characters, is attached]\n"
        whole = AttachMemory(body, name="answer.md", mimetype="text/markdown")  # type: ignore[no-untyped-call]
        attachment = apprise.AppriseAttachment([whole])
    return beginning(body, most - size(note), size=size) + note, attachment


if __name__ == "__main__":
    main()
