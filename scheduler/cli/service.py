"""`promptd start`: the daemon in the foreground; `reload` and `stop`: asking the one that runs."""

import os
import select
import signal
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from jobs import clock
from jobs.errors import Busy, Unavailable
from scheduler.cli import remote
from scheduler.cli.context import Context, pass_context
from scheduler.cli.edge import ExitCode
from scheduler.cli.lazy import long_life
from scheduler.cli.remote import RunningDaemon, ToldFaults
from scheduler.cli.tables import Facts, View, shown

if TYPE_CHECKING:
    from scheduler.config.settings import Settings

# ruff: noqa: PLC0415 - the daemon is loaded when it is started

_LAST_STEPS = 30.0
_LOOK_EVERY = 0.2
_CREDENTIALS = struct.Struct("3i")


@click.command("start")
@pass_context
def start(context: Context) -> int:
    """Migrate the database (backup first), plan, serve and run, until SIGTERM or Ctrl-C.

    Exit code 75: a daemon with this state_dir and this server.listen runs already. 78: the configuration has
    faults.
    """
    signal.signal(signal.SIGTERM, _end)  # until the daemon minds them itself
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    import asyncio
    import logging

    from scheduler import logs
    from scheduler.app import open_vault, up_to_date
    from scheduler.daemon import run_daemon

    settings = context.settings
    _refuse_a_second(settings, context.environ)
    del context.loaded  # with 10,000 jobs the files that they were made of take 40 MB
    open_vault(settings, context.environ, context.redactor)
    logs.configure(
        settings.log_level,
        settings.log_format,
        context.redactor,
        environ=context.environ,
        color=context.color,
    )
    logger = logging.getLogger("promptd")
    for warning in settings.warnings:
        logger.warning("%s", warning)
    backup = up_to_date(settings.database)
    if backup is not None:
        logger.info("the database was migrated; the backup is %s", backup)
    long_life()
    asyncio.run(run_daemon(settings, environ=context.environ, redactor=context.redactor))
    return 0


def _refuse_a_second(settings: "Settings", environ: Mapping[str, str]) -> None:
    """Raise Busy where the daemon of this state directory has this address, before anything is done.

    Daemons beside each other are wanted: those listen elsewhere, or nowhere.
    """
    from scheduler.control_socket import listening_process
    from scheduler.http_server import is_taken

    pid = listening_process(settings.state_dir, environ)
    if pid is None or settings.listen is None or not is_taken(settings.listen):
        return
    who = f", process {pid}" if pid else ""
    raise Busy(f"a daemon runs already{who}; see `promptd status`, or end it with `promptd stop`")


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """End a start that has not come far: nothing has begun that would have to be drained."""
    raise SystemExit(ExitCode.DONE)


@click.command("reload")
@shown
def reload(context: Context) -> View:
    """Have the daemon read the configuration again, and say what that changed.

    Exit code 78: the configuration has faults, and nothing was changed. 69: no daemon answers.
    """
    told = remote.ask(context, "reload")
    if not told["ok"]:
        return View(told, [], code=ExitCode.CONFIG, error=ToldFaults("\n".join(told["faults"])))
    return View(told, _changes(told))


def _changes(told: Mapping[str, Any]) -> list[Facts | str]:
    names = {word: _listed(told[word]) for word in ("added", "changed", "removed")}
    facts = [
        *names.items(),
        ("settings", _listed(told.get("settings", ()))),
        ("waits for a restart", _listed(told["waits_for_restart"])),
    ]
    return [Facts(facts)] if any(value for _, value in facts) else ["nothing has changed"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


@click.command("stop")
@click.option("--now", is_flag=True, help="Cancel running work instead of letting it end.")
@pass_context
def stop(context: Context, now: bool) -> int:
    """Have the daemon finish its running work, and wait until it has ended.

    Exit code 75: it has not ended within its drain timeout and half a minute. 69: no daemon answers.
    """
    daemon = remote.running(context)
    if daemon is None:
        raise Unavailable(remote.no_daemon(context))
    with daemon:
        patience = float(daemon.facts.get("drain_timeout", 0)) + _LAST_STEPS
        process = _process_of(daemon)
        daemon.ask("stop", now=now)
        if not _ended(context, process, within=patience):
            raise Busy(
                f"the daemon has not ended within {patience:g} s; `promptd stop --now` cancels its work"
            )
    click.echo("promptd: the daemon has stopped", err=True)
    return ExitCode.DONE


def _process_of(daemon: RunningDaemon) -> int | None:
    """Return a descriptor of the daemon's process; None where it is in another world, such as a container."""
    size = _CREDENTIALS.size
    found = daemon.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, _, _ = _CREDENTIALS.unpack(found)
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _ended(context: Context, process: int | None, *, within: float) -> bool:
    """Wait for the end of a process; of one that cannot be seen, until nobody answers for it."""
    if process is not None:
        try:
            return bool(select.select([process], [], [], within)[0])
        finally:
            os.close(process)
    give_up = clock.monotonic() + within
    while (daemon := remote.running(context)) is not None:
        daemon.connection.close()
        if clock.monotonic() > give_up:
            return False
        time.sleep(_LOOK_EVERY)
    return True
