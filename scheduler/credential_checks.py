"""Checking credentials: one tiny real request for each, through the one loop, settled like any answer."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from jobs import clock
from jobs.attempt import Purpose
from jobs.providers.call import Answered, Call, ChainExhausted, Left
from jobs.request import Request
from jobs.secret import Redactor
from jobs.target import Target
from scheduler.app import App, ensure_database, open_app
from scheduler.config.settings import Settings

CHECK_TIMEOUT = timedelta(seconds=30)
_GRACE = 1.0  # seconds in which an answer that came at the last moment is written down
_REQUEST = Request("Reply with the one word: ok")


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check, and after how many seconds; None where no answer came in time."""

    ended: Answered | Left | None
    seconds: float


def check_now(
    settings: Settings,
    checks: Sequence[tuple[Target, str]],
    *,
    environ: Mapping[str, str],
    redactor: Redactor,
) -> list[Checked]:
    """Ask each target once with the credential of that label, all at the same time; at most 30 s."""
    if not checks:
        return []
    ensure_database(settings)

    async def main() -> list[Checked]:
        async with open_app(settings, environ=environ, kind="command", redactor=redactor) as app:
            return await asyncio.gather(*(_check(app, target, label) for target, label in checks))

    return asyncio.run(main())


async def _check(app: App, target: Target, label: str) -> Checked:
    """Ask also through marks that will pass: what a check proves is worth more than what they fear."""
    started = clock.monotonic()
    limit = CHECK_TIMEOUT.total_seconds()
    call = Call(
        (target,),
        started + limit,
        purpose=Purpose.CHECK,
        through_closed=True,
        waits=False,
        only=label,
    )
    ended: Answered | Left | None
    try:
        async with asyncio.timeout(limit + _GRACE):
            ended = await app.workshop.chain.complete(_REQUEST, call)
    except ChainExhausted as exc:
        ended = exc.left[0]
    except TimeoutError:
        ended = None
    return Checked(ended, clock.monotonic() - started)
