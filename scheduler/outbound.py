"""What a daemon does beside its jobs' runs: deliveries, alerts, heartbeats, and forgetting what is old."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from jobs.credential import SecretReference
from jobs.delivery.alerts import Alerts, Watched
from jobs.delivery.heartbeat import Heartbeats
from jobs.delivery.outbox import LOOKS_EVERY, Outbox, Ways
from jobs.events import Event, RunRecovered
from scheduler import delivery_secrets
from scheduler.app import App
from scheduler.config.settings import Settings
from scheduler.retention import Retention

BEGUN_AGAIN_AFTER = 10.0
LAST_PINGS = 5.0
logger = logging.getLogger(__name__)


class Outbound:
    """Makes the parts of one daemon and keeps them at work: one that breaks is told of, and begun again."""

    def __init__(
        self,
        app: App,
        *,
        begun_again_after: float = BEGUN_AGAIN_AFTER,
        looks_every: float = LOOKS_EVERY,
    ) -> None:
        self._app, self._pause = app, begun_again_after
        self._outbox = Outbox(
            app.store,
            app.events,
            ways_of(app),
            instance_id=app.workshop.instance_id,
            looks_every=looks_every,
        )
        self._alerts = Alerts(
            app.store,
            app.events,
            watched_of(app),
            wake=self._outbox.wake,
            instance_id=app.workshop.instance_id,
        )
        self._heartbeats = Heartbeats(
            heartbeats_of(app.settings), secrets=app.tools.secrets, outgoing=app.tools.outgoing
        )
        self._retention = Retention(app)
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        app.events.listen(self._hear)

    def start(self) -> None:
        """Begin with everything, beside the caller."""
        watches = {
            "deliveries": self._outbox.watch,
            "alerts": self._alerts.watch,
            "retention": self._retention.watch,
        }
        self._tasks = tuple(
            asyncio.create_task(self._kept_up(name, watch), name=name) for name, watch in watches.items()
        )

    def take(self, app: App, ways: Ways) -> None:
        """Work with this configuration from now on; `ways` are its own (`ways_of`)."""
        self._app = app
        self._outbox.take(ways)
        self._alerts.take(watched_of(app))
        self._heartbeats.take(heartbeats_of(app.settings), secrets=app.tools.secrets)
        self._retention.take(app)

    def wake(self) -> None:
        """Look soon for what is to be sent, also where a target has hung: somebody asks for it."""
        self._outbox.hasten()

    def worked(self, job: str) -> None:
        """Send what a run of this job may have brought; its title has been sought by now.

        One that is configured no more may have ended with deliveries all the same.
        """
        known = self._app.settings.jobs.get(job)
        if known is None or known.job.deliver:
            self._outbox.wake()

    def close(self) -> None:
        """Begin to send nothing more but heartbeats, which belong to the runs that still end."""
        self._outbox.close()
        for task in self._tasks:
            task.cancel()

    async def drain(self, seconds: float) -> None:
        """Let what is being sent have so long to arrive."""
        self.close()
        await asyncio.gather(
            self._outbox.drain(seconds), self._heartbeats.stop(max(1.0, min(seconds, LAST_PINGS)))
        )

    async def stop(self) -> None:
        """Leave what has not arrived to the next process."""
        self.close()
        await asyncio.gather(self._outbox.stop(), self._heartbeats.stop(0.0))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hear(self, event: Event) -> None:
        self._alerts.hear(event)
        self._heartbeats.hear(event)
        if isinstance(event, RunRecovered):
            self.worked(event.run.job)

    async def _kept_up(self, name: str, watch: Callable[[], Awaitable[None]]) -> None:
        """Keep something at work for as long as it wants to be; runs go on whatever is wrong with it."""
        while True:
            try:
                return await watch()
            except Exception as exc:  # an edge: none of these may end a daemon whose jobs are due
                logger.exception("%s have broken, and begin again in %g s: %r", name, self._pause, exc)
            await asyncio.sleep(self._pause)


def ways_of(app: App) -> Ways:
    """Return where and with what deliveries are sent; reads their secrets, so it belongs off the loop."""
    zones = {name: job.timezone for name, job in app.settings.jobs.items()}
    seals = delivery_secrets.seals_of(app.settings, app.tools.secrets)
    return Ways(app.settings.delivery, zones, app.tools, seals, zone=app.settings.timezone)


def watched_of(app: App) -> Watched:
    """Return what a configuration wants alerts about."""
    settings = app.settings
    providers = {target.provider for target in settings.targets()}
    return Watched(
        settings.alerts,
        {name: job.job.pause_after_failures for name, job in settings.jobs.items() if job.enabled},
        tuple(each for name in sorted(providers) for each in settings.registry.provider(name).credentials),
        settings.timezone,
        tuple(settings.registry.provider(name) for name in settings.asked_providers()),
        app.services.vault,
    )


def heartbeats_of(settings: Settings) -> Mapping[str, SecretReference]:
    """Return which jobs have a heartbeat, and where it is sent."""
    found = ((name, job.job.heartbeat) for name, job in settings.jobs.items())
    return {name: beat for name, beat in found if beat is not None}
