"""What runs are done with, and one try of a run at work."""

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from jobs.attempt import Purpose
from jobs.auxiliary import Helper
from jobs.commands import Commands
from jobs.definition import Auxiliary, Job
from jobs.events import Events
from jobs.providers.call import Drill, Rest
from jobs.providers.chain import Chain
from jobs.run import ClaimedRun
from jobs.secret import Redactor
from jobs.store.store import Store

_LONGEST_TOLD = 8_000  # characters of an error's text, which may quote anything


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a run is done with; made once by the composition root."""

    store: Store
    chain: Chain
    events: Events
    redactor: Redactor
    commands: Commands
    instance_id: int


@dataclass(frozen=True, slots=True)
class Work:
    """One try of a run: what is done, with what, and until which moment of `clock.monotonic`."""

    run: ClaimedRun
    job: Job
    workshop: Workshop
    zone: ZoneInfo
    deadline: float
    drill: Drill | None
    rest: Rest

    def helper(self, task: Auxiliary, purpose: Purpose) -> Helper:
        """Return whoever does an auxiliary task for this try."""
        workshop = self.workshop
        return Helper(
            workshop.chain,
            task,
            purpose,
            self.run,
            self.job,
            deadline=self.deadline,
            redactor=workshop.redactor,
            drill=self.drill,
        )

    def told(self, what: object) -> str:
        """Return the words of an error, which may quote anything, cut to a length and without secrets."""
        return self.workshop.redactor.clean(str(what)[:_LONGEST_TOLD])
