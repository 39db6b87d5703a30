"""What people read in a notice: what is wrong, since when, and the command that mends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from types import MappingProxyType
from typing import assert_never
from zoneinfo import ZoneInfo

from jobs.alert import AlertKind, Notice
from jobs.credential import Credential, CredentialKind
from jobs.delivery.alert_rules import Fact, HeldBy, Keyless, Refusal, Trouble, Watched
from jobs.errors import ErrorClass
from jobs.providers.login_times import ends_at
from jobs.providers.vault import way_in
from jobs.run import Reason, RunState
from jobs.store.alert_facts import AbandonedRun, ClosedCredential, EndedRun, FailingJob
from jobs.store.alerts import Change, Standing, Told
from jobs.store.tokens import SealedTokens

MOST_APART = 5
"""Of more notices of one kind than these at a time one message is made."""

MOST_NAMED = 20
_LONGEST = 500
_BEFORE_ANYBODY_IS_ASKED = (Reason.CONDITION, Reason.GATHER, Reason.TEMPLATE)


@dataclass(frozen=True, slots=True)
class Details:
    """What only words need: the time, jobs' newest ends, and some jobs that each set of credentials holds."""

    now: datetime
    ends: Mapping[str, EndedRun] = field(default_factory=lambda: MappingProxyType({}))
    held: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class _Said:
    subject: str
    lines: tuple[str, ...]


def opened(
    trouble: Trouble, details: Details, watched: Watched, *, standing: Standing | None = None
) -> Change:
    """Return the words with which an alert opens; `standing` is what was written down of it already."""
    said = _said(trouble.fact, details, watched)
    return Change(Notice.OPENED, trouble.about, said.subject, "\n".join(said.lines), standing)


def reminder(standing: Standing, trouble: Trouble, details: Details, watched: Watched) -> Change:
    """Return the words that say that something is still wrong."""
    said = _said(trouble.fact, details, watched)
    lines = (_since(standing, details, watched), *said.lines)
    return Change(Notice.REMINDER, trouble.about, f"Still: {said.subject}", "\n".join(lines), standing)


def resolved(standing: Standing, details: Details, watched: Watched) -> Change:
    """Return the words that say that something is over."""
    said = _over(standing, details, watched.zone)
    lines = (*said.lines, _since(standing, details, watched))
    return Change(Notice.RESOLVED, standing.about, said.subject, "\n".join(lines), standing)


def _since(standing: Standing, details: Details, watched: Watched) -> str:
    at = moment(standing.opened_at, watched.zone)
    return f"It was told of first at {at}, {length(details.now - standing.opened_at)} ago."


def gathered(told: Sequence[Told]) -> list[Told]:
    """Make one notice of each many that say the same of the same kind of thing; it is the first one's."""

    def alike(each: Told) -> tuple[str, str]:
        return each.change.about.kind.value, each.change.notice.value

    notices: list[Told] = []
    for _, group in groupby(sorted(told, key=alike), key=alike):
        some = list(group)
        notices += some if len(some) <= MOST_APART else [_together(some)]
    return notices


def _together(told: Sequence[Told]) -> Told:
    first = told[0].change
    lines = [each.change.subject for each in told[:MOST_NAMED]]
    if len(told) > MOST_NAMED:
        lines.append(f"… and {len(told) - MOST_NAMED} more")
    subject = f"{first.subject}, and {len(told) - 1} more like it"
    look = "To look at them: `promptd status`, `promptd job list`, `promptd auth list`."
    return replace(told[0], change=replace(first, subject=subject, body="\n".join((*lines, "", look))))


def _said(fact: Fact, details: Details, watched: Watched) -> _Said:
    match fact:
        case FailingJob():
            said = _of_failing(fact, details.ends.get(fact.name), watched.zone)
        case HeldBy():
            said = _of_held(fact, details.held.get(", ".join(fact.names), ()), watched.zone)
        case ClosedCredential():
            said = _of_closed(fact, watched)
        case SealedTokens():
            said = _of_ending(fact, watched, details.now)
        case AbandonedRun():
            said = _of_abandoned(fact, watched.zone)
        case Refusal():
            said = _of_refusal(fact)
        case Keyless():
            said = _of_keyless(fact)
        case _:
            assert_never(fact)
    return said


def _of_failing(job: FailingJob, newest: EndedRun | None, zone: ZoneInfo) -> _Said:
    number = "1 failed run" if job.failures == 1 else f"{job.failures} failed runs in a row"
    lines = []
    if newest is not None:
        why = f" ({newest.reason})" if newest.reason else ""
        words = f": {_short(newest.message)}" if newest.message else ""
        due = moment(newest.scheduled_for, zone)
        lines.append(f"The newest is run {newest.id}, due {due}: {newest.state.value}{why}{words}")
        if newest.provider is not None and newest.reason not in _BEFORE_ANYBODY_IS_ASKED:
            lines.append(f"Its chain begins with {newest.provider}/{newest.model}.")
        lines.append(f"To see all that is known of it: `promptd run show {newest.id}`.")
    if newest is None or newest.reason not in _BEFORE_ANYBODY_IS_ASKED:
        lines.append(f"To see whom its next run asks: `promptd explain {job.name}`.")
    if job.paused:
        lines.append(f"The job is paused; when it is mended: `promptd job resume {job.name}`.")
    return _Said(f"{job.name} fails: {number}", tuple(lines))


def _of_held(held: HeldBy, jobs: Sequence[str], zone: ZoneInfo) -> _Said:
    who = jobs[0] if held.held == 1 and jobs else f"{held.held} jobs"
    names = ", ".join(held.names)
    verbs = ("is" if held.held == 1 else "are", "is" if len(held.names) == 1 else "are")
    lines = []
    if held.held > 1 and jobs:
        more = f" and {held.held - len(jobs)} more" if held.held > len(jobs) else ""
        lines.append(f"Held: {', '.join(jobs)}{more}.")
    if held.until is not None:
        lines.append(f"Until {moment(held.until, zone)}, unless something opens before: {held.reason}.")
    lines.append("What falls due meanwhile is skipped; the newest of it is made up for afterwards.")
    for name in held.names:
        provider, _, label = name.partition("/")
        lines.append(
            f"To see why: `promptd auth why {provider} {label}`; "
            f"when it is mended: `promptd auth reset {provider} {label}`."
        )
    return _Said(f"{who} {verbs[0]} held: {names} {verbs[1]} closed", tuple(lines))


def _of_closed(mark: ClosedCredential, watched: Watched) -> _Said:
    name, zone = f"{mark.provider}/{mark.earned_by}", watched.zone
    code = f", {mark.code}" if mark.code else ""
    status = f"HTTP {mark.http_status}" if mark.http_status else "no HTTP status"
    said = f": {_short(mark.said)}" if mark.said else ""
    lines = [f"The provider's answer at {moment(mark.made_at, zone)}: {status}{said}"]
    command = f"{mark.provider} {mark.earned_by}"
    if mark.quota_group is not None:
        lines += _of_group(mark, watched)
    if mark.error_class is ErrorClass.QUOTA_BILLING:
        subject = f"{name} is closed for money ({mark.error_class}{code})"
        again = f" It is tried again after {moment(mark.until, zone)}." if mark.until else ""
        lines.append(f"After a top-up: `promptd auth reset {command}`.{again}")
    else:
        subject = f"{name} is refused for good ({mark.error_class}{code})"
        lines.append(_way_out(watched.credential(mark.provider, mark.earned_by), command))
    lines.append(f"To see the attempts behind it: `promptd auth why {command}`.")
    return _Said(subject, tuple(lines))


def _of_group(mark: ClosedCredential, watched: Watched) -> list[str]:
    """Say who else is closed, where a group has more than one credential."""
    members = [
        each.label
        for each in watched.credentials
        if each.provider == mark.provider and each.quota_group == mark.quota_group
    ]
    return [f"Closed with it, in the group {mark.quota_group}: {', '.join(members)}."] if members[1:] else []


def _way_out(credential: Credential | None, command: str) -> str:
    if credential is not None and credential.kind is CredentialKind.OAUTH:
        return f"To log in anew: {way_in(credential)}."
    place = f" into {credential.source}" if credential is not None else ""
    return f"Put another key{place}; to try the same one again: `promptd auth reset {command}`."


def _of_ending(login: SealedTokens, watched: Watched, now: datetime) -> _Said:
    end, credential = ends_at(login), watched.credential(login.provider, login.label)
    assert end is not None, "nothing is wrong with a login that does not end"
    assert credential is not None, "nobody watches it"
    verb = "ended" if end <= now else "ends"
    lines = (
        f"It {verb} at {moment(end, watched.zone)}; then nothing can be asked with it any more.",
        f"To log in anew: {way_in(credential)}.",
    )
    return _Said(f"the login {login.provider}/{login.label} {verb} at {end:%Y-%m-%d %H:%M} UTC", lines)


def _of_abandoned(run: AbandonedRun, zone: ZoneInfo) -> _Said:
    lines = (
        f"It was due {moment(run.scheduled_for, zone)}.",
        f"The process that did it is gone, as was found at {moment(run.finished_at, zone)}.",
        "What it had asked may have been paid for, so it was not asked again.",
        f"To see what it had asked: `promptd run show {run.id}`.",
        f"To run it again: `promptd run retry {run.id}`.",
    )
    return _Said(f"{run.job}: run {run.id} was abandoned", lines)


def _of_refusal(refusal: Refusal) -> _Said:
    lines = (
        f"{_short(refusal.message)}; nobody was marked by it.",
        "This is a fault of promptd itself: please report it, with the log around it.",
    )
    return _Said(f"a mark was refused: attempt {refusal.attempt_id} had not earned it", lines)


def _of_keyless(keyless: Keyless) -> _Said:
    lines = (
        f"{_short(keyless.why)}.",
        "Runs whose chain begins with it fail; behind others it is passed over.",
        "To see what is read from where: `promptd check`; the keys are read anew at every request.",
    )
    return _Said(f"no key for {keyless.provider} can be read", lines)


def _over(standing: Standing, details: Details, zone: ZoneInfo) -> _Said:
    about = standing.about
    name = f"{about.provider}/{about.credential}"
    match about.kind:
        case AlertKind.JOB_FAILING:
            said = _succeeds(str(about.job), details.ends.get(str(about.job)), zone)
        case AlertKind.JOB_HELD:
            names = about.key.partition(":")[2]
            said = _Said(f"no job is held by {names} any more", ("What falls due is asked again.",))
        case AlertKind.CREDENTIAL_DEAD:
            said = _Said(f"{name} is no longer refused", ("It was reset, or there is a new login or key.",))
        case AlertKind.CREDENTIAL_BILLING:
            said = _Said(f"{name} is no longer closed for money", ("It has answered, or was reset.",))
        case AlertKind.LOGIN_ENDING:
            said = _Said(f"the login {name} was renewed", ("Nothing needs to be done.",))
        case AlertKind.PROVIDER_KEYLESS:
            said = _Said(f"a key for {about.provider} can be read again", ())
        case AlertKind.RUN_ABANDONED | AlertKind.ATTRIBUTION_REFUSED:
            said = _Said(f"{about.key} is over", ())
        case _:
            assert_never(about.kind)
    return said


def _succeeds(job: str, newest: EndedRun | None, zone: ZoneInfo) -> _Said:
    """A job's failures in a row end with a success, or when somebody resumes it."""
    if newest is None:
        return _Said(f"{job} is no longer failing", ())
    if newest.state is not RunState.SUCCEEDED:
        words = "Its failed runs in a row were forgotten when it was resumed; it has not succeeded since."
        return _Said(f"{job} was resumed", (words,))
    due = moment(newest.scheduled_for, zone)
    return _Said(f"{job} succeeds again", (f"Run {newest.id}, due {due}, has succeeded.",))


def moment(at: datetime, zone: ZoneInfo) -> str:
    """Return a time as people are told it: in UTC, and in a zone where that is another one."""
    utc = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    if zone.key in ("UTC", "Etc/UTC"):
        return utc
    return f"{utc} ({at.astimezone(zone):%Y-%m-%d %H:%M:%S} {zone.key})"


def length(span: timedelta) -> str:
    """Return a span in its two largest units, seconds left out where there are minutes."""
    minutes, seconds = divmod(max(0, int(span.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min")]
    said = [f"{number} {unit}" for number, unit in units if number][:2]
    return " ".join(said) or f"{seconds} s"


def _short(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
