"""The child process in which Apprise works: reads one order from standard input, prints what became of it.

`{"url", "subject", "body", "characters", "whole_text", "seconds"}` in, `{"delivered", "why", "permanent"}`
out, both JSON; `characters` is what the whole text has: the body may be its beginning.
Only the address that it is given is used: no configuration, no plugins of others, nothing kept on a disk;
and nothing is asked that webhooks never ask.
"""

import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO

import apprise
from apprise.attachment.memory import AttachMemory
from apprise.common import OverflowMode, PersistentStoreMode
from apprise.conversion import convert_between

from jobs.delivery.addresses import refusal_in_url
from jobs.delivery.guarded_sockets import guard
from jobs.delivery.limits import beginning, cut_note, utf8_size

_MOST_MEMORY = 2 * 1024**3  # bytes of addresses: an endless answer ends this process, not the machine
_MOST_PIECES = 10
_MOST_ATTACHED = 2_000_000  # bytes: with base64 far below the 10 MB of Postfix (postconf(5)) and Discord
_ATTACHING = frozenset(
    {
        *("NotifyEmail", "NotifyBrevo", "NotifyMailerSend", "NotifyPostmark", "NotifyResend"),
        *("NotifySendGrid", "NotifySMTP2Go", "NotifySparkPost", "NotifyDiscord", "NotifyTelegram"),
    }
)
"""The plugins of Apprise that are known, by our tests, to send what they are given to attach.

What a class says of itself (`attachment_support`) is no measure, up to Apprise 2.2: Slack's webhooks and the
other modes of Matrix drop an attachment, Pushover and Notifyre all but pictures, and the message counts as
delivered; Mailgun and `form://` look for a file of its name, and never deliver.
"""
_LONGEST_WORD = 300
_LONGEST_WHY = 4_000
_TELLING = ("Socket Exception", "Response Details", "SMTP")
"""How Apprise begins those of its debugging lines that say what went wrong: nothing else does."""


class _Words(logging.Handler):
    """Keeps what Apprise says about a failure; what it cuts ends in `…`: so a cut secret is known."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING or text.startswith(_TELLING):
            line = " ".join(text[: 4 * _LONGEST_WORD].split())
            is_cut = len(line) > _LONGEST_WORD or len(text) > 4 * _LONGEST_WORD
            self.said.append(f"{line[:_LONGEST_WORD]}…" if is_cut else line)


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
    delivered = notified(service, order)
    why = "; ".join(dict.fromkeys(words.said)) or "Apprise does not say why"
    return {"delivered": delivered, "why": "" if delivered else why, "permanent": False}


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


def notified(service: Any, order: dict[str, Any]) -> bool:
    """Have a service send what an order says; return whether it was taken."""
    body, attachment = fitted(service, order)
    sender = apprise.Apprise(asset=service.asset)
    sender.add(service)
    taken = sender.notify(
        body=body,
        title=order["subject"],
        attach=attachment,
        body_format=apprise.NotifyFormat.TEXT,
    )
    return bool(taken)


def fitted(service: Any, order: dict[str, Any]) -> tuple[str, Any]:
    """Return the text as the service takes it, and an attachment: the whole text, where it is too long.

    It is attached where the service is known to send that, else only cut; either way the text names the
    command that prints it.
    """
    body, subject, characters = order["body"], order["subject"], order["characters"]
    pieces = _pieces(service, order["seconds"])
    in_body = service.title_maxlen <= 0 or service.overflow_amalgamate_title
    most = pieces * (service.body_maxlen - (len(subject) + 20 if in_body else 0))
    size = _size_at(service, is_split=service.overflow_mode == OverflowMode.SPLIT)
    if len(body) <= most and size(body) <= most:
        return body, None
    is_attached = len(body) == characters and _sends_attached(service) and utf8_size(body) <= _MOST_ATTACHED
    note = cut_note(characters, order["whole_text"], is_attached=is_attached)
    return beginning(body, most - size(note), size=size) + note, _attached(body) if is_attached else None


def _pieces(service: Any, seconds: float) -> int:
    """Return in how many pieces, about, a text may go: several where the URL asks for `?overflow=split`.

    Apprise waits between requests, 1.2 s at Slack and up to 5.5 s elsewhere: half of the time is for that.
    """
    if service.overflow_mode != OverflowMode.SPLIT:
        return 1
    waits = service.request_rate_per_sec * max(1, len(service))
    return max(1, min(_MOST_PIECES, int(seconds / 2 / waits))) if waits > 0 else _MOST_PIECES


def _size_at(service: Any, *, is_split: bool) -> Callable[[str], int]:
    """Return what tells how much of its limit a text takes at a service: no less than its characters.

    First Apprise gives it the form of the service, then it writes that in the service's own way: Slack has
    `<` as `&lt;`. A text is split before the last step and each piece once more after it, so that both count.
    """
    shape = service.resolve_format(apprise.NotifyFormat.TEXT)

    def size(text: str) -> int:
        formed = convert_between(apprise.NotifyFormat.TEXT, shape, text)  # type: ignore[no-untyped-call]
        arriving = len(service.dialect_convert(formed, shape))
        both = len(formed) + arriving if is_split and arriving > len(formed) else arriving
        return max(len(text), len(formed), both)

    return size


def _sends_attached(service: Any) -> bool:
    """Say whether a service surely sends an attachment; one that fills a template may not."""
    return type(service).__name__ in _ATTACHING and not getattr(service, "template", None)


def _attached(text: str) -> Any:
    whole = AttachMemory(text, name="answer.md", mimetype="text/markdown")  # type: ignore[no-untyped-call]
    return apprise.AppriseAttachment([whole])


if __name__ == "__main__":
    main()
