"""What a job may use in a day: its calendar day, and what is left of its tokens."""

from dataclasses import replace
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

from jobs.definition import Job
from jobs.request import Parameters


def day_begins(now: datetime, zone: ZoneInfo) -> datetime:
    """Return when the calendar day of `now` began in a zone, in UTC."""
    return datetime.combine(now.astimezone(zone).date(), time(), zone).astimezone(UTC)


def within(job: Job, tokens: int) -> Job:
    """Return the job with so many tokens as the most of an answer, or fewer where it says so itself."""
    own = job.parameters.max_output_tokens
    most = tokens if own is None else min(own, tokens)
    limited: Parameters = replace(job.parameters, max_output_tokens=most)
    return replace(job, parameters=limited)
