"""Trying a delivery target: one test message, sent now as results are, and nothing written down."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from jobs import clock
from jobs.delivery.message import message_of_test
from jobs.delivery.outgoing import Outgoing
from jobs.delivery.send import send
from jobs.delivery.target import DeliveryTarget
from jobs.errors import Undeliverable
from jobs.secret import Redactor
from jobs.store.deliveries import new_key
from scheduler import delivery_secrets
from scheduler.app import tools_of
from scheduler.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a test message, after so many seconds; `refused` is None where it was delivered."""

    refused: Undeliverable | None
    seconds: float


def try_now(
    settings: Settings, target: DeliveryTarget, *, environ: Mapping[str, str], redactor: Redactor
) -> Tried:
    """Send a test message to a target, within its timeout."""
    delivery_secrets.learn_all(settings, environ, redactor)

    async def main() -> Tried:
        outgoing = Outgoing(redactor)
        tools = tools_of(settings, environ, redactor, outgoing=outgoing)
        message = message_of_test(target.name, new_key(), now=clock.utcnow())
        began, refused = clock.monotonic(), None
        try:
            await send(target, message, tools=tools)
        except Undeliverable as exc:
            refused = exc
        finally:
            await outgoing.close()
        return Tried(refused, clock.monotonic() - began)

    return asyncio.run(main())
