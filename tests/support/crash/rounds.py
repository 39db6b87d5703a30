"""The rounds: each one's way of killing a daemon, and what is looked at afterwards."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType

from support.crash.memory import faults_of, opened
from support.crash.old_databases import migration
from support.crash.points import A_LATE_REFUSAL, IN_A_RELOAD, IN_THE_STORE, Death, Point
from support.crash.provider import HALF, HEARD, WHOLE
from support.crash.receiver import DELIVERY_HEARD, Held
from support.crash.stage import PATIENCE, Stage, Victim

Round = Callable[[Stage, str], None]
_TOGETHER, _TAKES_OVER = 0.3, 0.15
_LONGEST_TOGETHER = 8.0
_MOST_TRIES = 5
_BEAT = 5.5  # seconds, within which a daemon looks for what others have left


def in_the_store(point: Point, stage: Stage, name: str) -> None:
    """Let a daemon die in its store; now and then beside another one, which takes over what it leaves.

    The other one may always be the first to do what is waited for, so it does not stay for long.
    """
    random = stage.random
    nth, beside = random.randint(point.least, point.most), random.random() < _TOGETHER
    with stage.daemon(Death(point, nth)) as victim:
        if not beside:
            stage.note(name, reached=victim.gone(PATIENCE))
            return
        with stage.daemon() as other:
            reached = victim.gone(_LONGEST_TOGETHER)
            if reached:
                stage.note(name, reached=True)
                other.gone(_BEAT if random.random() < _TAKES_OVER else random.uniform(0, 0.5))
        if not reached:
            stage.note(name, reached=victim.gone(PATIENCE))
        stage.note("at random, as one of two", reached=True)


def at_the_provider(moment: str, stage: Stage, name: str) -> None:
    """Let the provider kill the daemon that asks it."""
    with stage.daemon() as victim:
        stage.provider.fuse.arm(moment, stage.random.randint(1, 10), victim.kill)
        stage.note(name, reached=victim.gone(PATIENCE))
        stage.provider.fuse.disarm()


def at_the_receiver(moment: str, stage: Stage, name: str) -> None:
    """Let the receiver kill the daemon that sends to it."""
    with stage.daemon() as victim:
        stage.receiver.fuse.arm(moment, stage.random.randint(1, 6), victim.kill)
        stage.note(name, reached=victim.gone(PATIENCE))
        stage.receiver.fuse.disarm()


def overtaken(stage: Stage, name: str) -> None:
    """Let a daemon be told "no" when another one sends the same already, and die of it.

    What it has written then must have changed nothing: the delivery is the other's.
    """
    with stage.receiver.holding() as held, stage.daemon(Death(A_LATE_REFUSAL, 1)) as victim:
        if not held.came(0, PATIENCE):
            stage.note(name, reached=False)
            return
        _row_of(stage, held, "UPDATE deliveries SET sending_until = created_at")  # as if its time were over
        with stage.daemon() as other:
            came = held.came(1, PATIENCE)
            before = _row_of(stage, held)
            held.answer(0, taken=False)
            stage.note(name, reached=came and victim.gone(PATIENCE))
            if _row_of(stage, held) != before:
                stage.complain(f"a sender that was overtaken has changed the delivery {held.key}")
            held.answer(1, taken=True)
            give_up = time.monotonic() + PATIENCE
            while _row_of(stage, held)["state"] == "pending" and time.monotonic() < give_up:
                other.gone(0.1)


def _row_of(stage: Stage, held: Held, deed: str | None = None) -> dict[str, object]:
    """Do something to the row of what is held, and return it."""
    with opened(stage.world.database) as connection:
        if deed is not None:
            with connection:
                connection.execute(f"{deed} WHERE idempotency_key = ?", (held.key,))
        found = connection.execute("SELECT * FROM deliveries WHERE idempotency_key = ?", (held.key,))
        return dict(found.fetchone())


def in_a_reload(point: Point, stage: Stage, name: str) -> None:
    """Let a daemon die at a point of a reload that changes jobs."""
    with stage.daemon(Death(point, stage.random.randint(point.least, point.most))) as victim:
        _reload(stage, victim)
        stage.note(name, reached=victim.gone(PATIENCE))


def about_a_reload(stage: Stage, name: str) -> None:
    """Kill a daemon some time after it was asked to reload."""
    with stage.daemon() as victim:
        _reload(stage, victim)
        stage.note(name, reached=not victim.gone(stage.random.uniform(0, 0.2)))


def _reload(stage: Stage, victim: Victim) -> None:
    victim.ears.hear("READY=1", time.monotonic() + PATIENCE)
    victim.gone(stage.random.uniform(0, 1.0))
    stage.variant += 1
    stage.world.configure(stage.variant)
    victim.kill(signal.SIGHUP)


def at_random(stage: Stage, name: str) -> None:
    """Kill a daemon at some time, while it starts too."""
    with stage.daemon() as victim:
        stage.note(name, reached=not victim.gone(stage.random.uniform(0, 3)))


def while_it_stops(stage: Stage, name: str) -> None:
    """Kill a daemon while it drains; where the harness was so slow that it had stopped, another one."""
    reached, tries = False, 0
    while not reached and tries < _MOST_TRIES:
        tries += 1
        with stage.daemon() as victim:
            victim.ears.hear("READY=1", time.monotonic() + PATIENCE)
            victim.gone(stage.random.uniform(0.5, 1.5))
            victim.kill(signal.SIGTERM)
            victim.ears.hear("STOPPING=1", time.monotonic() + PATIENCE)
            reached = not victim.gone(stage.random.uniform(0, 0.1))
    stage.note(name, reached=reached)


def as_installed(stage: Stage, name: str) -> None:
    """Kill the installed command, which imports everything itself."""
    process = stage.installed("start")
    time.sleep(stage.random.uniform(1, 4))
    before, alive = time.monotonic(), process.poll() is None
    process.kill()
    said, _ = process.communicate(timeout=PATIENCE)
    stage.ends.append((before, time.monotonic()))
    stage.note(name, reached=alive)
    if not alive:
        stage.complain(f"the installed daemon has ended by itself: {said}")


def in_a_backup(stage: Stage, name: str) -> None:
    """Kill a command that makes a backup, before a step of it."""
    whole, target = _backup_of(stage, "measured"), _backup_of(stage, "cut-short")
    measured = stage.command("db", "backup", str(whole))
    if measured.code != 0 or measured.steps is None:
        stage.complain(f"promptd db backup has ended with {measured.code}: {measured.said}")
        return
    cut = stage.command("db", "backup", str(target), last=stage.random.randint(1, measured.steps))
    stage.note(name, reached=cut.code == -signal.SIGKILL)
    _see_backups(stage, whole, target)


def beside_a_backup(stage: Stage, name: str) -> None:
    """Kill a daemon, and with it or not the process that carries the command out, while it makes a backup."""
    target = _backup_of(stage, "carried")
    with stage.daemon() as victim:
        victim.ears.hear("READY=1", time.monotonic() + PATIENCE)
        asked = stage.installed("db", "backup", str(target))
        begun = _something_new(target.parent, within=PATIENCE)
        time.sleep(stage.random.uniform(0, 0.03))
        children = list(_children(victim.pid))
        victim.kill()
        for child in children if stage.random.random() < 0.5 else ():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        stage.note(name, reached=begun and victim.gone(PATIENCE))
        asked.communicate(timeout=2 * PATIENCE)
        _wait_for_the_end_of(children)
    _see_backups(stage, target)


def _backup_of(stage: Stage, name: str) -> Path:
    place = stage.world.directory / "backups"
    place.mkdir(exist_ok=True)
    for left in place.iterdir():
        left.unlink()
    return place / f"{name}.db"


def _something_new(place: Path, within: float) -> bool:
    give_up = time.monotonic() + within
    while time.monotonic() < give_up:
        if any(place.iterdir()):
            return True
        time.sleep(0.001)
    return False


def _children(pid: int) -> Iterator[int]:
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        yield from (int(child) for child in tasks.read_text("ascii").split())


def _wait_for_the_end_of(processes: list[int]) -> None:
    give_up = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in processes) and time.monotonic() < give_up:
        time.sleep(0.05)


def _see_backups(stage: Stage, *targets: Path) -> None:
    """A backup that has its name is whole: sound, and with runs in it."""
    for target in targets:
        if target.exists():
            stage.complain(*(f"a backup is there and no good: {why}" for why in faults_of(target)))
            if target.stat().st_size == 0:
                stage.complain(f"the backup {target.name} is there, and empty")


ROUNDS: Mapping[str, Round] = MappingProxyType(
    {
        **{name: partial(in_the_store, point) for name, point in IN_THE_STORE.items()},
        **{name: partial(in_a_reload, point) for name, point in IN_A_RELOAD.items()},
        **{name: partial(at_the_provider, name) for name in (HEARD, HALF, WHOLE)},
        DELIVERY_HEARD: partial(at_the_receiver, DELIVERY_HEARD),
        "overtaken in a delivery": overtaken,
        "about a reload": about_a_reload,
        "in a backup": in_a_backup,
        "beside a backup": beside_a_backup,
        "in a migration": migration,
        "while it stops": while_it_stops,
        "at random": at_random,
        "at random, as installed": as_installed,
    }
)
