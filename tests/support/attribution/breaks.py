"""Attribution broken on purpose: stores that, asked to settle a failure, lay its blame on somebody else.

Each takes the place of the real one, and settles everything else as that does. The failure is written on its
own attempt; only the mark goes astray, in one of the ways in which it once did.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from jobs.attempt import Attempt
from jobs.providers.registry import Registry
from jobs.providers.settle import Settled, settle_failure
from jobs.store.store import Store
from support.attribution.record import Record

Blame = Callable[[Attempt], Attempt]


class AstrayStore(Store):
    """Settles every failure with the mark on the attempt that `blame` names in the place of the real one."""

    def __init__(self, url: str, blame: Blame) -> None:
        super().__init__(url)
        self._blame = blame

    async def write(self, verb: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a verb, but settle failures astray."""
        if settle_failure in args:
            args = tuple(self._settle if each is settle_failure else each for each in args)
        return await super().write(verb, *args, **kwargs)

    def _settle(
        self, connection: Connection, vault: Any, provider: Any, attempt: Attempt, *rest: Any, **fields: Any
    ) -> Settled:
        blamed = self._blame(attempt)
        astray = settle_failure(connection, vault, provider, blamed, *rest, **fields)
        told = settle_failure(connection, vault, provider, attempt, *rest, **{**fields, "marks": False})
        return replace(told, mark=astray.mark, refused_attribution=astray.refused_attribution)


def _pool_head(_record: Record, registry: Registry) -> Blame:
    """The first credential of the pool is marked, whichever was used."""
    return lambda attempt: replace(
        attempt, credential=registry.provider(attempt.target.provider).credentials[0]
    )


def _primary(record: Record, _registry: Registry) -> Blame:
    """What the call asked first is marked, whoever answered."""

    def blame(attempt: Attempt) -> Attempt:
        asked = record.by_attempt.get(attempt.id)
        first = asked.heard.requests[0].attempt if asked is not None else None
        return first or attempt

    return blame


def _provider_name(record: Record, _registry: Registry) -> Blame:
    """What was last asked under the same provider's name is marked, whichever credential that had."""

    def blame(attempt: Attempt) -> Attempt:
        same = (each for each in reversed(record.requests) if each.provider == attempt.target.provider)
        return next((each.attempt for each in same if each.attempt is not None), attempt)

    return blame


BREAKS: Mapping[str, Callable[[Record, Registry], Blame]] = {
    "pool-head": _pool_head,
    "primary": _primary,
    "provider-name": _provider_name,
}


def broken_store(way: str) -> Callable[[str, Record, Registry], Store]:
    """Return what makes a store that is broken in one of the ways."""
    return lambda url, record, registry: AstrayStore(url, BREAKS[way](record, registry))
