"""`promptd check`: everything that is wrong, in one go. Starts nothing and creates nothing."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from sqlalchemy import Connection

from jobs import clock
from jobs.credential import Readable, Unreadable
from jobs.errors import ConfigError, Fault, SecretUnreadable
from jobs.providers.secrets import Keyring, SecretReader
from jobs.store.engine import sqlite_path
from scheduler.cli.check_delivery import unusable
from scheduler.cli.context import Context
from scheduler.cli.edge import ExitCode
from scheduler.cli.secrets import look, own_key_missing, used_providers
from scheduler.cli.tables import View, shown
from scheduler.config.gather import worded
from scheduler.config.settings import Settings
from scheduler.doctor import files


@click.command("check")
@shown
def check(context: Context) -> View:
    """Check the configuration and whether its secrets can be read and used.

    Exit code 78: faults in the files. 1: a secret cannot be used now, which does not keep the daemon down.
    """
    context = context.on_disk()
    try:
        settings = context.settings
        _check_places(settings)
        _check_secret_key(context)
    except ConfigError as exc:
        return _faulty(exc)
    unreadable = unusable_secrets(context)
    warnings = [*settings.warnings, *secrets_for_everybody(context)]
    readable = not unreadable
    providers = used_providers(context)
    counts = (
        f"{len(settings.jobs)} jobs, {len(providers)} providers and {len(settings.delivery)} delivery targets"
    )
    summary = f"{settings.source}: {counts} are configured"
    verdict = "everything can be read" if readable else "what is named above cannot be used now"
    return View(
        {**_shape(context), "ok": readable, "warnings": warnings, "unreadable": unreadable},
        ["\n".join([*_lines(warnings, unreadable), f"{summary}; {verdict}"])],
        code=ExitCode.DONE if readable else ExitCode.FAILED,
    )


def unusable_secrets(context: Context) -> list[dict[str, Any]]:
    """Return `provider`, `label`, `source` and `why` of each secret that cannot be used now.

    Raises Unavailable for a database of another revision.
    """
    with context.reading() as connection:
        unreadable = _unreadable(context, connection, now=clock.utcnow())
    return unreadable + [
        _unread("", each.kept.key, str(each.kept.reference), each.why) for each in unusable(context)
    ]


def secrets_for_everybody(context: Context) -> list[str]:
    """Return a warning for each file of a secret that everybody may read; raises ConfigError."""
    named = context.loaded.secret_files
    loose = files.secrets_for_everybody(named, files=context.secret_files, environ=context.environ)
    return [worded(*named[file], text) for file, text in loose]


def _check_places(settings: Settings) -> None:
    """Raise ConfigError where state_dir or the database's directory is, or lies below, something else."""
    path = sqlite_path(settings.database)
    places = {"state_dir": settings.state_dir, **({"database": path.parent} if path else {})}
    wrong = [
        Fault(settings.source, 0, 0, key, f"{there} is no directory", "name another one, or move it away")
        for key, place in places.items()
        if not (there := next(each for each in (place, *place.parents) if each.exists())).is_dir()
    ]
    if wrong:
        raise ConfigError(wrong)


def _shape(context: Context) -> dict[str, Any]:
    settings = context.settings
    return {
        "ok": True,
        "config": str(settings.source),
        "jobs": len(settings.jobs),
        "providers": sorted(used_providers(context)),
        "targets": sorted(settings.delivery),
        "faults": [],
        "warnings": [],
        "unreadable": [],
    }


def _faulty(error: ConfigError) -> View:
    data = {
        "ok": False,
        "config": None,
        "jobs": None,
        "providers": [],
        "targets": [],
        "faults": [_fault(fault) for fault in error.faults],
        "warnings": [],
        "unreadable": [],
    }
    return View(data, [], code=ExitCode.CONFIG, error=error)


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "file": str(fault.file),
        "line": fault.line,
        "column": fault.column,
        "key": fault.key,
        "wrong": fault.wrong,
        "mend": fault.mend,
    }


def _lines(warnings: Sequence[str], unreadable: list[dict[str, Any]]) -> list[str]:
    said = [
        f"{' '.join(filter(None, (each['provider'], each['label'])))}: {each['why']}" for each in unreadable
    ]
    return [*(f"warning: {warning}" for warning in warnings), *(f"unreadable: {line}" for line in said)]


def _check_secret_key(context: Context) -> None:
    """Raise ConfigError for a secret_key that can be read and will not do; others are told later."""
    reader = SecretReader(context.environ, context.redactor, files=context.secret_files)
    settings = context.settings
    try:
        keys = [reader.read(reference) for reference in settings.secret_keys]
    except SecretUnreadable:
        return
    try:
        Keyring(keys)
    except SecretUnreadable as exc:
        wrong, _, mend = str(exc).partition("; ")
        raise ConfigError([Fault(settings.source, 0, 0, "secret_key", wrong, mend)]) from exc


def _unreadable(context: Context, connection: Connection, *, now: datetime) -> list[dict[str, Any]]:
    looked = look(context)
    found = []
    if looked.trouble and not own_key_missing(context.settings):
        found.append(_unread("", "secret_key", str(context.settings.secret_keys[0]), looked.trouble))
    for name in sorted(used_providers(context)):
        opened = looked.vault.look(connection, context.registry.provider(name), now=now)
        found.extend(_of_credential(each) for each in _told(opened))
    return found


def _told(opened: list[Readable | Unreadable]) -> list[Unreadable]:
    """Return what cannot be read; of a built-in's key variables any one is enough, so the first is told."""
    unread = [each for each in opened if isinstance(each, Unreadable)]
    implicit = [each for each in unread if each.credential.implicit]
    return [*implicit[:1], *(each for each in unread if not each.credential.implicit)]


def _of_credential(each: Unreadable) -> dict[str, Any]:
    credential = each.credential
    return _unread(credential.provider, credential.label, credential.source, each.why)


def _unread(provider: str, label: str, source: str, why: str) -> dict[str, Any]:
    return {"provider": provider or None, "label": label, "source": source, "why": why}
