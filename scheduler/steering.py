"""What operators ask of a running daemon over its control socket."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jobs import clock
from jobs.errors import Unavailable, UsageError
from jobs.run import Reason, Trigger
from jobs.store import ledger, runs
from scheduler import __version__
from scheduler.app import App
from scheduler.by_hand import add_by_hand
from scheduler.config.in_force import handed_over
from scheduler.later import Later
from scheduler.reload import Reloaded
from scheduler.worker_pool import WorkerPool


class Steered(Protocol):
    """A daemon, as far as it can be steered."""

    app: App
    workers: WorkerPool
    later: Later

    @property
    def stopping(self) -> bool:
        """Whether it drains."""

    def stop(self) -> None:
        """Begin to drain; the second time, cancel what runs."""

    async def reload(self) -> Reloaded:
        """Read the configuration again."""

    def forget(self, run_id: int) -> None:
        """Drop a run that waited and has ended."""

    async def look_at(self, names: Sequence[str]) -> None:
        """Look at jobs now."""


class Steering:
    """The verbs of the control socket (`control_protocol.Verbs`), carried out by one daemon."""

    def __init__(self, daemon: Steered) -> None:
        self._daemon = daemon

    def hello(self) -> Mapping[str, Any]:
        """Say which daemon this is."""
        settings = self._daemon.app.settings
        return {
            "config": str(settings.source),
            "pid": os.getpid(),
            "version": __version__,
            "drain_timeout": settings.limits.drain_timeout.total_seconds(),
        }

    def in_force(self) -> bytes:
        """Return the configuration that is in force, for a process that carries a command out."""
        return handed_over(self._daemon.app.settings)

    async def reload(self) -> Mapping[str, Any]:
        """Read the configuration again."""
        return (await self._daemon.reload()).plain()

    async def stop(self, *, now: bool) -> None:
        """Begin to drain; with `now` cancel what runs."""
        if now and not self._daemon.stopping:
            self._daemon.stop()
        self._daemon.stop()

    async def cancel(self, run_id: int) -> bool:
        """End a run that waits or is at work here; returns whether it did."""
        daemon = self._daemon
        if daemon.workers.cancel(run_id, Reason.OPERATOR):
            return True
        queued = await daemon.app.store.write(runs.cancel_queued, run_id, Reason.OPERATOR, now=clock.utcnow())
        daemon.forget(run_id)
        if queued and (row := await daemon.app.store.read(ledger.run, run_id)) is not None:
            await daemon.look_at([row["job"]])  # one that never began counts for nothing
        return queued or daemon.workers.cancel(run_id, Reason.OPERATOR)

    async def wake(self, names: Sequence[str]) -> None:
        """Look at these jobs now."""
        await self._daemon.look_at(names)

    async def run(
        self, job: str, values: Mapping[str, Any], *, retry_of: int | None = None, force: bool = False
    ) -> int:
        """Begin a run of a job here and return its id; raises UsageError, Busy or Unavailable."""
        daemon = self._daemon
        if daemon.stopping:
            raise Unavailable("the daemon is stopping; ask again when it runs")
        found = daemon.app.settings.jobs.get(job)
        if found is None:
            raise UsageError(f"the daemon knows no job {job!r}; `promptd reload` shows it new ones")
        run = await add_by_hand(
            daemon.app, found, trigger=Trigger.MANUAL, values=values, retry_of=retry_of, force=force
        )
        daemon.later.put([run])
        return run.id
