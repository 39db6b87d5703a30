"""Sending one message to one target, whatever kind it is."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, assert_never

from jobs.commands import Commands
from jobs.delivery import apprise, command, file, webhook
from jobs.delivery.aside import Aside
from jobs.delivery.message import Message
from jobs.delivery.outgoing import Outgoing
from jobs.delivery.own_files import OwnFiles
from jobs.delivery.target import AppriseTarget, CommandTarget, DeliveryTarget, FileTarget, WebhookTarget
from jobs.errors import CommandFailed, SecretUnreadable, Undeliverable
from jobs.providers.secrets import SecretReader
from jobs.redaction import redacted
from jobs.secret import Redactor

_OURS = frozenset(
    {
        *("job", "target", "provider", "model", "credential"),
        *("trigger", "state", "class", "alert", "notice", "scheduled_for", "finished_at", "opened_at"),
    }
)
"""Facts that are names in the configuration, words or times of ours: files and receivers go by them."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What sending takes; made once by the composition root, which closes `outgoing`."""

    secrets: SecretReader
    redactor: Redactor
    commands: Commands
    outgoing: Outgoing
    own_files: OwnFiles
    disks: Aside = field(default_factory=Aside)


async def send(target: DeliveryTarget, message: Message, *, tools: Tools) -> None:
    """Deliver a message, in at most the target's timeout and the few seconds in which a command dies.

    Raises Undeliverable, and nothing else, where it was not delivered; its text holds no secret. A secret of
    ours that the message quotes is taken out of it first, of its facts as well.
    """
    own = tools.redactor.own
    body, facts = await redacted(own, message.body), MappingProxyType(_without(own, message.facts))
    told = replace(message, subject=own(message.subject), body=body, facts=facts)
    try:
        await _sent(target, told, tools)
    except (CommandFailed, SecretUnreadable) as exc:
        raise Undeliverable(tools.redactor.clean(str(exc))) from exc


def _without(own: Callable[[str], str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as they are told: of each text that may quote somebody, however deep, what `own` makes."""

    def told(value: Any) -> Any:
        match value:
            case str():
                return own(value)
            case Mapping():
                return _without(own, value)
            case list() | tuple():
                return [told(each) for each in value]
            case _:
                return value

    return {name: value if name in _OURS else told(value) for name, value in facts.items()}


async def _sent(target: DeliveryTarget, message: Message, tools: Tools) -> None:
    match target:
        case AppriseTarget():
            url = await asyncio.to_thread(tools.secrets.unlearned, target.url)
            await apprise.notify(target, message, url=url, commands=tools.commands, redactor=tools.redactor)
        case WebhookTarget():
            await webhook.post(target, message, secrets=tools.secrets, outgoing=tools.outgoing)
        case FileTarget():
            await _written(target, message, tools)
        case CommandTarget():
            await command.feed(target, message, commands=tools.commands)
        case _:
            assert_never(target)


async def _written(target: FileTarget, message: Message, tools: Tools) -> None:
    """Write a file; a disk that does not answer is given up, and what it was given is written when it does.

    Until then nothing else is handed to it, so that no older text comes after a newer one.
    """
    key = (target.name, target.base, target.template)
    try:
        async with asyncio.timeout(target.timeout.total_seconds()):
            await tools.disks.call(key, file.write, target, message, tools.own_files)
    except TimeoutError:
        seconds = target.timeout.total_seconds()
        raise Undeliverable(f"its disk gave no answer within {seconds:g} s") from None
    except BlockingIOError as exc:
        raise Undeliverable(f"its disk gives no answer: {exc.strerror}") from exc
