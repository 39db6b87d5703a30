"""What a reload changes and leaves alone, and that nothing begins any more once the stop was asked for."""

import signal
import time
from typing import Any

from support.workplace import Workplace, eventually

WAITS = 'shell: true, timeout: 20m, command: "%s"'
HEAD = """
model: {provider: custom, base_url: "http://127.0.0.1:9/v1", model: small, api_key: no-key-required}
limits: {max_concurrent_runs: %d, drain_timeout: 20m}
jobs:
"""
UNTIL_GO = "until test -e go; do sleep 0.1; done"
SLOW = f"  - {{name: slow, schedule: null, prompt: x, condition: {{{WAITS % UNTIL_GO}}}}}\n"
JOB = '  - {name: %s, schedule: "%s", prompt: x, condition: {command: ["false"]}%s}\n'


def written(*jobs: str, workers: int = 8) -> str:
    return HEAD % workers + "".join(jobs)


def job(name: str, schedule: str, more: str = "") -> str:
    return JOB % (name, schedule, f", {more}" if more else "")


def rows(house: Workplace, name: str) -> list[dict[str, Any]]:
    return house.rows("SELECT * FROM runs WHERE job = ? ORDER BY id", name)


def count(house: Workplace, name: str) -> int:
    return len(rows(house, name))


def test_nothing_is_claimed_any_more_after_a_stop_whatever_was_reloaded(workplace: Workplace) -> None:
    """Each reload makes a new timer: those before it must be gone, and a reload must not begin one again."""
    workplace.configure(written(SLOW, job("tick", "every 1s")))
    with workplace.daemon() as daemon:
        for _ in range(3):
            assert workplace.run("reload").code == 0
        assert workplace.run("job", "run", "slow", "--detach").code == 0
        daemon.signal(signal.SIGTERM)
        daemon.signal(signal.SIGHUP)
        refused = workplace.run("reload")
        stopped_at = time.monotonic()
        eventually(lambda: time.monotonic() > stopped_at + 2.5)
        (workplace.directory / "go").touch()
        eventually(lambda: daemon.process.poll() is not None)
        code = daemon.process.returncode
    (stopping,) = workplace.rows("SELECT max(stopped_at) AS at FROM instances WHERE kind = 'daemon'")
    (newest,) = workplace.rows("SELECT max(created_at) AS at FROM runs WHERE job = 'tick'")
    (slow,) = rows(workplace, "slow")
    assert (code, refused.code) == (0, 69), (code, refused)
    assert slow["reason"] == "connection", "what ran had its time to ask a server that is not there"
    seconds = "SELECT (julianday(?) - julianday(?)) * 86400 AS gap"
    (drained,) = workplace.rows(seconds, stopping["at"], newest["at"])
    assert drained["gap"] > 2, "a job that is due each second made no row while the daemon drained"
    assert workplace.run("audit").code == 0


EVERY = "every 1s"


def test_a_reload_keeps_cursors_and_applies_job_by_job(workplace: Workplace) -> None:
    """What did not change goes on as if nothing had happened; a bad file changes nothing at all."""
    after_reload = written(job("same", EVERY), job("other", "every 1h"), job("new", EVERY))
    workplace.configure(written(job("same", EVERY), job("other", EVERY), job("gone", EVERY)))
    with workplace.daemon():
        eventually(lambda: min(count(workplace, name) for name in ("same", "other", "gone")) >= 1)
        workplace.configure(after_reload)
        told = workplace.json("reload")
        eventually(lambda: count(workplace, "new") >= 1)
        before = count(workplace, "gone"), count(workplace, "other")
        workplace.configure(written(job("same", "no line"), job("gone", "every 1s")))
        refused = workplace.run("reload")
        here = count(workplace, "same")
        eventually(lambda: count(workplace, "same") >= here + 2)
        after = count(workplace, "gone"), count(workplace, "other")
        workplace.configure(after_reload)
    same = [row["scheduled_for"][:19] for row in rows(workplace, "same")]
    assert (told["added"], told["changed"], told["removed"]) == (["new"], ["other"], ["gone"])
    assert refused.code == 78
    assert "jobs[0].schedule" in refused.err
    assert before == after, "neither a removed job nor a changed one runs by what it was"
    assert len(set(same)) == len(same)
    assert workplace.run("audit").code == 0


def test_a_run_that_was_cancelled_before_it_began_leaves_its_place_to_a_later_one(
    workplace: Workplace,
) -> None:
    """`max_runs` counts runs that were started; the daemon goes on by itself."""
    workplace.configure(written(SLOW, workers=1))
    with workplace.daemon():
        blocking = int(workplace.run("job", "run", "slow", "--detach").out)
        twice = job("twice", "every 1s", "max_runs: 2, concurrency: allow")
        workplace.configure(written(SLOW, twice, workers=1))
        assert workplace.run("reload").code == 0
        eventually(lambda: count(workplace, "twice") >= 2)
        waiting = [row["id"] for row in rows(workplace, "twice") if row["state"] == "queued"]
        assert workplace.run("run", "cancel", str(waiting[-1])).code == 0
        assert workplace.run("run", "cancel", str(blocking)).code == 0
        eventually(lambda: sum(row["started_at"] is not None for row in rows(workplace, "twice")) == 2)
    assert workplace.run("audit").code == 0


def test_a_daemon_with_another_timetable_goes_on_when_the_two_agree_again(
    workplace: Workplace, tmp_path_factory: Any
) -> None:
    """It leaves the job alone meanwhile, needs nobody to wake it, and has nothing to wait for as it stops."""
    other = Workplace(tmp_path_factory.mktemp("other"))
    shared = f'database: "sqlite:///{workplace.database}"\n'
    every = {n: shared + written(job("tick", f"every {n}s")).replace("20m", "1h") for n in (1, 2)}
    workplace.configure(every[1])
    other.configure(every[2])
    with workplace.daemon() as first:
        eventually(lambda: count(workplace, "tick") >= 1)
        with other.daemon():
            eventually(lambda: "has another timetable" in first.log.read_text())
            other.configure(every[1])
            assert other.run("reload").code == 0
        before = count(workplace, "tick")
        eventually(lambda: count(workplace, "tick") >= before + 2)
        assert first.stop() == 0
    assert workplace.run("audit").code == 0


def test_a_run_that_waited_behind_another_is_drained_like_any_other(workplace: Workplace) -> None:
    """It is cancelled when the drain time is over, and recorded so: an ordinary stop abandons nothing."""
    first_till_go_second_for_long = f"if mkdir first; then {UNTIL_GO}; else sleep 1000; fi"
    queue = f"concurrency: queue, max_runs: 2, condition: {{{WAITS % first_till_go_second_for_long}}}"
    only = f'  - {{name: behind, schedule: "every 1s", prompt: x, {queue}}}\n'
    workplace.configure(written(only).replace("drain_timeout: 20m", "drain_timeout: 1s"))
    with workplace.daemon() as daemon:
        eventually(lambda: count(workplace, "behind") >= 2)
        (workplace.directory / "go").touch()
        eventually(lambda: [row["state"] for row in rows(workplace, "behind")][1:2] == ["running"])
        code = daemon.stop()
        log = daemon.log.read_text()
    first, second, *_skipped = rows(workplace, "behind")
    assert (code, first["reason"]) == (0, "connection")
    assert (second["state"], second["reason"]) == ("cancelled", "shutdown")
    assert "not brought to its end" not in log
