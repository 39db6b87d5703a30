"""The keys of jobs as people meet them: the installed command, the daemon, and a provider on loopback."""

import json
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from support.workplace import PATIENCE, PROMPTD, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: {{provider: custom, name: main, base_url: "{url}", model: m, api_key: no-key-required}}
jobs:
{jobs}
"""
SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
REFUSED = Reply.error(400, message="no such thing")


def configure(workplace: Workplace, server: ThreadedLoopback, *jobs: str) -> None:
    lines = "".join(f"  - {{{job}}}\n" for job in jobs)
    workplace.configure(CONFIG.format(url=server.base_url, jobs=lines))


def ended(workplace: Workplace, job: str, number: int = 1) -> list[dict[str, Any]]:
    """Wait until that many runs of a job have ended; return them, oldest first."""
    query = "SELECT * FROM runs WHERE job = ? AND finished_at IS NOT NULL ORDER BY id"

    def found() -> list[dict[str, Any]] | None:
        rows = workplace.rows(query, job)
        return rows if len(rows) >= number else None

    return eventually(found)


def test_the_daemon_tries_again_and_other_jobs_come_after_a_success(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    """One run, two tries; what comes after it runs once, for it."""
    configure(
        workplace,
        primary,
        "name: first, schedule: every 1s, max_runs: 1, prompt: go, silent_when: output == 'done',"
        " retry: {delays: [1s], on: [bad_request]}",
        "name: second, schedule: null, prompt: then, after: [first]",
    )
    primary.script(Endpoint.CHAT, REFUSED, Reply.text("done"))

    with workplace.daemon() as daemon:
        (first,) = ended(workplace, "first")
        (second,) = ended(workplace, "second")
        log = daemon.log.read_text()

    assert (first["state"], first["tries"], first["silent"]) == ("succeeded", 2, 1)
    assert (second["state"], second["trigger"], second["parent_id"]) == ("succeeded", "after", first["id"])
    assert second["scheduled_for"] == first["scheduled_for"]
    assert [asked.prompt for asked in primary.requests] == ["go", "go", "then"]
    assert "run retries" in log
    assert "kept quiet" in workplace.run("run", "show", str(first["id"])).out


def test_a_job_is_paused_with_its_reason_after_so_many_failures(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    configure(workplace, primary, "name: a, schedule: every 1s, prompt: go, pause_after_failures: 2")
    primary.script(Endpoint.CHAT, REFUSED)

    with workplace.daemon():
        runs = ended(workplace, "a", 3)

    assert [(run["state"], run["reason"]) for run in runs[:3]] == [
        *[("failed", "bad_request")] * 2,
        ("skipped", "paused"),
    ]
    (job,) = workplace.json("job", "list")
    assert (job["paused"], job["pause_reason"]) == (True, "2 failed runs in a row")


def test_a_condition_decides_for_the_daemon_and_by_hand(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    (workplace.directory / "p.md").write_text("read {{ vars.what }}")
    configure(
        workplace,
        primary,
        "name: a, schedule: every 1s, prompt_file: p.md, vars: {what: all}, condition: [test, -e, go]",
    )

    by_hand = workplace.run("job", "run", "a")
    with workplace.daemon():
        skipped = ended(workplace, "a", 2)[1]
        (workplace.directory / "go").touch()
        eventually(lambda: primary.requests or None)

    assert (by_hand.code, by_hand.out) == (0, "")
    assert "the job's condition says that there is nothing to do" in by_hand.err
    assert (skipped["state"], skipped["reason"], skipped["tries"]) == ("skipped", "condition", 1)
    assert primary.requests[0].prompt == "read all"


def test_by_hand_a_further_try_is_waited_for_and_ctrl_c_ends_the_wait(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    retry = "retry: {{delays: [{delay}], on: [bad_request]}}"
    configure(
        workplace,
        primary,
        f"name: a, schedule: null, prompt: go, {retry.format(delay='1s')}",
        f"name: b, schedule: null, prompt: go, {retry.format(delay='5m')}",
        "name: c, schedule: null, prompt: then, after: [a]",
    )
    primary.script(Endpoint.CHAT, REFUSED, Reply.text("done"), REFUSED)

    again = workplace.run("job", "run", "a")
    words = [str(PROMPTD), "--config", str(workplace.config), "job", "run", "b"]
    with subprocess.Popen(
        words, env=workplace.environment(), cwd=workplace.directory, stderr=subprocess.PIPE, text=True
    ) as waits:
        waiting = "SELECT * FROM runs WHERE job = 'b' AND not_before IS NOT NULL"
        eventually(lambda: workplace.rows(waiting) or None)
        waits.send_signal(signal.SIGINT)
        _, said = waits.communicate(timeout=PATIENCE)

    assert (again.code, again.out) == (0, "done\n")
    assert "try 1 of run 1 failed, the next begins in 1 s" in again.err
    assert "run 2 of c comes after this one; it is queued for the daemon" in again.err
    assert (waits.returncode, "run 3 was cancelled" in said) == (130, True)
    rows = workplace.rows("SELECT state, reason, tries FROM runs WHERE job <> 'a' ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [("queued", None, 0), ("cancelled", "operator", 1)]


def test_a_dry_run_prints_the_prompt_and_neither_asks_nor_records(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    configure(
        workplace,
        primary,
        "name: a, schedule: null, gather: [echo, the log],"
        ' prompt: "{{ job }}, {{ vars.day }}: {{ gathered }}<{{ last_output }}>", system: be terse',
    )

    plain = workplace.run("job", "run", "a", "--dry-run", "--var", "day=monday")
    shape = workplace.run("job", "run", "a", "--dry-run", "--gather", "--var", "day=monday", "--json").json()

    assert plain.out.startswith("system:\nbe terse\n\nprompt:\na, monday: [here stands what")
    assert (shape["system"], shape["prompt"]) == ("be terse", "a, monday: the log\n<>")
    Draft202012Validator(json.loads((SCHEMAS / "job-run-dry.json").read_text())).validate(shape)
    assert primary.requests == []
    assert not workplace.database.exists()


def test_a_budget_that_is_used_up_starts_nothing(workplace: Workplace, primary: ThreadedLoopback) -> None:
    """Where it is noon, so that no day ends between the two."""
    noon = f"Etc/GMT{datetime.now(UTC).hour - 12:+}"  # a zone east of Greenwich has a minus there
    budget = f"timezone: {noon}, max_tokens_per_day: 3"
    configure(workplace, primary, f"name: a, schedule: null, prompt: go, {budget}")

    first, second = workplace.run("job", "run", "a"), workplace.run("job", "run", "a")

    assert (first.code, len(primary.requests)) == (0, 1)
    assert second.code != 0
    assert "the tokens of a for today are used up" in second.err
    rows = workplace.rows("SELECT state, reason FROM runs ORDER BY id")
    assert rows[1] == {"state": "skipped", "reason": "budget"}


def test_a_key_is_explained_with_what_is_in_effect(workplace: Workplace, primary: ThreadedLoopback) -> None:
    configure(workplace, primary, "name: a, schedule: null, prompt: go, timeout: 3m")

    said = workplace.run("config", "explain", "timeout").out
    shape = workplace.json("config", "explain", "jobs.a.timeout")

    assert "the whole run: all its tries and waits" in said
    Draft202012Validator(json.loads((SCHEMAS / "config-explain.json").read_text())).validate(shape)
    assert [(v["at"], v["value"]) for v in shape[0]["in_effect"]] == [("jobs.a.timeout", 180.0)]
