"""What a configured job means for its runs in the store: what bounds them, what their ends bring about."""

from collections import defaultdict
from datetime import datetime

from jobs import clock
from jobs.budget import day_begins
from jobs.definition import Job, OnCrash, OnTruncated
from jobs.run import Bounds, Budget, Consequences, Follower
from jobs.store.recovery import OnGone
from scheduler.config.settings import ScheduledJob, Settings


def bounds_of(job: ScheduledJob, *, now: datetime) -> Bounds:
    """Return what bounds a job's runs; a budget is that of the day in the job's zone."""
    tokens, reserved = job.job.max_tokens_per_day, job.job.parameters.max_output_tokens or 0
    return Bounds(
        job.job.concurrency,
        job.max_runs,
        Budget(tokens, day_begins(now, job.timezone), reserved) if tokens is not None else None,
    )


class Aftermath:
    """What the jobs of one configuration want of ends: looked up for every run, so gathered once."""

    def __init__(self, settings: Settings) -> None:
        self._followers: defaultdict[str, list[ScheduledJob]] = defaultdict(list)
        for each in settings.jobs.values():
            for parent in each.job.after if each.enabled else ():
                self._followers[parent].append(each)
        self._jobs = settings.jobs
        jobs = [each.job for each in settings.jobs.values()]
        self.on_gone = OnGone(
            rerun=frozenset(job.name for job in jobs if job.on_crash is OnCrash.RERUN),
            judged=frozenset(job.name for job in jobs if _is_judged(job)),
            quiet=frozenset(job.name for job in jobs if job.silent_when is not None),
            consequences=self.consequences_of,
        )

    def consequences_of(self, name: str) -> Consequences:
        """Return what the end of a run brings about whose process is gone; nothing where its job is, too."""
        job = self._jobs.get(name)
        return Consequences() if job is None else self.of(job.job)

    def of(self, job: Job) -> Consequences:
        """Return what the end of a run brings about that began with this job, which may be another one now.

        Who follows is what those jobs say at the end.
        """
        followers, now = self._followers.get(job.name, ()), clock.utcnow()
        return Consequences(
            tuple(Follower(each.name, bounds_of(each, now=now)) for each in followers),
            job.pause_after_failures,
            job.deliver,
            titled=job.title is not None,
        )


def _is_judged(job: Job) -> bool:
    """Say whether more is wanted of an answer than that there is one."""
    return job.parameters.response_format is not None or job.on_truncated is OnTruncated.FAIL
