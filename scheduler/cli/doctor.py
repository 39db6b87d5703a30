"""`promptd doctor`: environment, versions, database, clock, zone data, unit, permissions; each with its mend.

A running daemon looks at what is its own: its environment, files and secrets. The rest is seen from here.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from jobs import clock
from jobs.errors import ConfigError, PromptdError, Unavailable
from scheduler import __version__
from scheduler.cli import remote
from scheduler.cli.check import secrets_for_everybody
from scheduler.cli.context import Context, pass_context
from scheduler.cli.doctor_looks import Looks, looks_inside, looks_outside
from scheduler.cli.edge import ExitCode
from scheduler.cli.forward import carried_out
from scheduler.cli.lazy import Entry
from scheduler.cli.tables import View, shown
from scheduler.config.settings import Settings
from scheduler.doctor.finding import Finding, Level

_UNIT = "promptd.service"
_INSIDE = "doctor-inside"
_LARGEST_REPORT = 1_000_000


@click.command("doctor")
@click.option("--unit", default=_UNIT, metavar="NAME", help=f"The systemd unit; {_UNIT} by default.")
@shown
def doctor(context: Context, unit: str) -> View:
    """Look at everything that promptd needs, and say what mends it; change nothing.

    Exit code 1: something is a fault. What is unknown does not apply here, or cannot be seen by this user.
    """
    context = context.on_disk()
    settings, configured = _configuration(context)
    told = _daemon(context)
    inside = _by_the_daemon(context) if told.facts else None
    outside = [*configured, told.finding, *looks_outside(settings, unit=unit, answers=bool(told.facts))]
    found = [
        *((each, "shell") for each in outside),
        *((each, "daemon" if inside is not None else "shell") for each in inside or _own(context, settings)),
    ]
    data = {
        "ok": all(each.level is not Level.FAULT for each, _ in found),
        "version": __version__,
        "daemon": told.facts.get("pid"),
        "findings": [{**asdict(each), "seen_by": eyes} for each, eyes in found],
    }
    findings = [each for each, _ in found]
    lines = "\n".join(line for each in findings for line in _lines(each))
    return View(data, [lines, _summary(findings)], code=ExitCode.DONE if data["ok"] else ExitCode.FAILED)


@click.command(_INSIDE)
@pass_context
def inside(context: Context) -> int:
    """Look at what is this process's own, for a `promptd doctor` somewhere else; print JSON."""
    click.echo(json.dumps([asdict(each) for each in _own(context, context.settings)]))
    return ExitCode.DONE


@dataclass(frozen=True, slots=True)
class _Told:
    """What the daemon says of itself; `facts` are empty where none answers."""

    facts: Mapping[str, Any]
    finding: Finding


def _configuration(context: Context) -> tuple[Settings | None, list[Finding]]:
    """Return the configuration as the files say it now; None where they have faults."""
    name = "configuration"
    try:
        settings = context.settings
    except (ConfigError, Unavailable) as exc:
        first, *others = str(exc).splitlines()
        more = f" (and {len(others)} more)" if others else ""
        return None, [Finding.fault(name, f"{first}{more}", "run `promptd check`, which names every fault")]
    warnings = [*settings.warnings, *secrets_for_everybody(context)]
    found = [Finding.warning(name, warning, "see `promptd check`") for warning in warnings]
    return settings, found or [Finding.ok(name, f"{settings.source}: {len(settings.jobs)} jobs")]


def _daemon(context: Context) -> _Told:
    """Ask who listens on the control socket of this configuration."""
    try:
        daemon = remote.running(context)
        if daemon is None:
            return _Told({}, Finding.unknown("daemon", remote.no_daemon(context)))
    except (PromptdError, OSError) as exc:
        return _Told({}, Finding.unknown("daemon", str(exc)))
    facts = dict(daemon.facts)
    daemon.connection.close()
    seen = f"process {facts.get('pid')} answers, version {facts.get('version')}"
    if facts.get("version") != __version__:
        mend = "restart it, so that it is the version that is installed"
        return _Told(facts, Finding.warning("daemon", f"{seen}; this is {__version__}", mend))
    return _Told(facts, Finding.ok("daemon", seen))


def _own(context: Context, settings: Settings | None) -> list[Finding]:
    """Look at what is this process's own."""
    return list(looks_inside(Looks(context, settings, now=clock.utcnow())))


def _by_the_daemon(context: Context) -> list[Finding] | None:
    """Have the daemon look at what is its own; None where it cannot."""
    entry = Entry("", in_daemon=True)
    nothing, report = os.open(os.devnull, os.O_RDWR), os.memfd_create("promptd", os.MFD_CLOEXEC)
    try:
        code = carried_out(context, [_INSIDE], [], entry=entry, streams=(nothing, report, nothing))
        text = os.pread(report, _LARGEST_REPORT, 0)
    except (PromptdError, OSError):
        return None
    finally:
        os.close(nothing)
        os.close(report)
    return list(_read(json.loads(text))) if code == ExitCode.DONE else None


def _read(rows: Sequence[Mapping[str, str]]) -> Iterator[Finding]:
    for row in rows:
        yield Finding(row["name"], Level(row["level"]), row["seen"], row["mend"])


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.level:<8} {finding.name:<20} {' '.join(finding.seen.split())}"
    if finding.mend:
        yield f"{'':<30}→ {finding.mend}"


def _summary(findings: Sequence[Finding]) -> str:
    counts = {level: sum(each.level is level for each in findings) for level in Level}
    faults, warnings = counts[Level.FAULT], counts[Level.WARNING]
    return f"{faults} faults, {warnings} warnings, {counts[Level.OK]} are well"
