"""The processes that are killed, forked from one that has imported everything: imports cost two seconds."""

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from jobs import clock
from jobs.secret import Redactor
from jobs.store import migrate
from jobs.store.store import Store
from scheduler import logs
from scheduler.cli import main
from scheduler.config import loader
from scheduler.daemon import run_daemon
from support.crash.deadly import DeadlyStore, Steps
from support.crash.points import Death

PRELOADED = (
    *("support.crash.victims", "apscheduler.schedulers.asyncio", "openai.resources.chat.completions"),
    *("aiohttp", "scheduler.cli.audit", "scheduler.cli.db", "scheduler.cli.db_backup"),
)
LONGEST_LIFE = 900  # seconds: nobody is left behind by a harness that was killed itself


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process is told: its configuration, its environment, where it writes, and where it dies."""

    config: Path
    log: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    death: Death | None = None


def daemon(orders: Orders) -> None:
    """Be `promptd start`, until the point of death."""
    _settle_in(orders)
    settings = loader.load(orders.config, environ=orders.environ, now=clock.utcnow())
    redactor = Redactor()
    logs.configure(settings.log_level, settings.log_format, redactor)
    migrate.upgrade(settings.database, now=clock.utcnow())
    make_store = partial(DeadlyStore, death=orders.death) if orders.death else Store
    asyncio.run(run_daemon(settings, environ=orders.environ, redactor=redactor, make_store=make_store))


def command(orders: Orders, words: tuple[str, ...], last: int | None, told: Path) -> None:
    """Be another command of `promptd`, which dies before step `last` of its work with databases."""
    _settle_in(orders)
    steps = Steps(last, told)
    steps.begin()
    code = main(["--config", str(orders.config), *words], environ=orders.environ)
    steps.end()
    sys.exit(code)


def _settle_in(orders: Orders) -> None:
    signal.alarm(LONGEST_LIFE)
    os.environ.clear()
    os.environ.update(orders.environ)
    log = os.open(orders.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)


class Nursery:
    """Starts processes that have everything imported already."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))

    def start(self, body: Callable[..., None], *told: Any) -> ForkServerProcess:
        """Fork a process that does `body(*told)`."""
        process = self._context.Process(target=body, args=told, daemon=True)
        process.start()
        return process


def processor_seconds() -> float:
    """Return what this process and those it has started have used, with all that these have waited for.

    proc(5): `stat` has these four from its 14th field on, in clock ticks.
    """
    used = time.process_time()
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text("ascii").split():
            stat = Path(f"/proc/{child}/stat").read_text("utf-8").rpartition(")")[2].split()
            used += sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")
    return used
