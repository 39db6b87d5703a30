"""`promptd start`: the daemon in the foreground."""

import click

from jobs import clock
from scheduler.cli.context import Context, pass_context

# ruff: noqa: PLC0415 - the daemon is loaded when it is started


@click.command("start")
@pass_context
def start(context: Context) -> int:
    """Migrate the database (backup first), plan, serve and run, until SIGTERM or Ctrl-C."""
    import asyncio
    import logging

    from jobs.store import migrate
    from scheduler import logs
    from scheduler.app import open_vault
    from scheduler.daemon import run_daemon

    settings = context.settings
    open_vault(settings, context.environ, context.redactor)
    logs.configure(settings.log_level, settings.log_format, context.redactor)
    logger = logging.getLogger("promptd")
    for warning in settings.warnings:
        logger.warning("%s", warning)
    backup = migrate.upgrade(settings.database, now=clock.utcnow())
    if backup is not None:
        logger.info("the database was migrated; the backup is %s", backup)
    asyncio.run(run_daemon(settings, environ=context.environ, redactor=context.redactor))
    return 0
