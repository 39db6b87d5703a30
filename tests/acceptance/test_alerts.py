"""What is wrong is told once, across kills and restarts, and so is that it is over: real daemons."""

import json
import signal
from typing import Any

import pytest
from support.hostile import said, stalled
from support.http_peer import HttpPeer, answer
from support.receiver import receiving
from support.workplace import DaemonProcess, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
timezone: Europe/Berlin
model: zai/glm-5
fallback_providers: [{fallback}]
providers:
  zai: {{base_url: "{url}", credentials: [{{label: main, key: "env:ZAI_KEY"}}]}}
delivery: {{ops: {{webhook: "{hook}"}}}}
alerts: {{to: [ops], after_failures: 3, remind_every: 24h}}
jobs:
  - {{name: digest, schedule: every 1s, prompt: hello{more}}}
"""
KEY = "a-very-secret-key-1234"
FINE = said(answer(200))
REFUSED = Reply.error(400, message="this model takes no such parameter")
NO_MONEY = Reply.json(429, {"error": {"code": "1113", "message": "Insufficient balance, please recharge."}})
ALERTS = "SELECT key, reminders, resolved_at IS NOT NULL AS over FROM alerts WHERE kind <> ?"


@pytest.fixture
def house(workplace: Workplace) -> Workplace:
    """A workplace whose provider has a key."""
    workplace.environ["ZAI_KEY"] = KEY
    return workplace


def configure(
    house: Workplace, provider: ThreadedLoopback, hook: HttpPeer, *, more: str = "", fallback: str = ""
) -> None:
    house.configure(CONFIG.format(url=provider.base_url, hook=hook.url(), more=more, fallback=fallback))


def notices(hook: HttpPeer) -> dict[str, Any]:
    """Return what was told, by its key: what arrived twice counts once."""
    return {each.headers["idempotency-key"]: json.loads(each.body)["data"] for each in hook.taken}


def told(hook: HttpPeer, *, but: str = "") -> list[tuple[str, str]]:
    """Return (kind, notice) of each notice, in the order of their arrival, but of those of one kind."""
    return [(each["alert"], each["notice"]) for each in notices(hook).values() if each["alert"] != but]


def kill(daemon: DaemonProcess) -> None:
    """End a daemon without a word."""
    daemon.signal(signal.SIGKILL)
    daemon.process.wait()


def test_a_job_that_fails_is_told_once_across_kills_and_its_recovery_once(
    house: Workplace, primary: ThreadedLoopback
) -> None:
    """The first daemon dies while it tells; the second one tells it, with the same key, and nothing anew.

    A kill may leave a run behind, which is another alert.
    """
    left = "run_abandoned"
    primary.script(Endpoint.CHAT, REFUSED)
    with receiving(stalled(), FINE) as hook:
        configure(house, primary, hook)
        with house.daemon() as first:
            eventually(lambda: len(hook.taken) == 1)
            kill(first)
        with house.daemon():
            eventually(lambda: len(notices(hook)) < len(hook.taken))
            primary.script(Endpoint.CHAT, Reply.text("fine"))
            eventually(lambda: ("job_failing", "resolved") in told(hook))

    assert told(hook, but=left) == [("job_failing", "opened"), ("job_failing", "resolved")]
    opened, over = (each for each in notices(hook).values() if each["alert"] != left)
    assert opened["subject"].startswith("digest fails: ")
    assert "this model takes no such parameter" in opened["text"]
    assert "`promptd run show " in opened["text"]
    assert over["subject"] == "digest succeeds again"
    assert house.rows(ALERTS, left) == [{"key": "job_failing:digest", "reminders": 0, "over": 1}]


def test_an_empty_balance_is_told_with_what_it_holds_and_both_are_over_after_a_reset(
    house: Workplace, primary: ThreadedLoopback
) -> None:
    """No notice holds the key."""
    primary.script(Endpoint.CHAT, NO_MONEY)
    with receiving(FINE) as hook:
        configure(house, primary, hook)
        with house.daemon():
            eventually(lambda: {each for each, _ in told(hook)} == {"credential_billing", "job_held"})
            primary.script(Endpoint.CHAT, Reply.text("fine"))
            assert house.run("auth", "reset", "zai", "main").code == 0
            over = {("credential_billing", "resolved"), ("job_held", "resolved")}
            eventually(lambda: over <= set(told(hook)))

    said_ = notices(hook).values()
    money = next(each for each in said_ if each["alert"] == "credential_billing")
    assert "Insufficient balance, please recharge." in money["text"]
    assert "`promptd auth reset zai main`" in money["text"]
    assert {"UTC", "Europe/Berlin)"} <= set(money["text"].replace(".", " ").split())
    assert KEY not in "".join(each.body.decode() for each in hook.taken)
    assert sorted(each for each in told(hook) if each[1] == "opened") == [
        ("credential_billing", "opened"),
        ("job_held", "opened"),
    ]


def test_every_run_of_a_daemon_is_pinged_with_its_id(house: Workplace, primary: ThreadedLoopback) -> None:
    """The end of a run that a kill has left is pinged by the next daemon, with the id of its beginning.

    Besides, a provider without a key is told of, whether anybody needs it or not.
    """
    primary.script(Endpoint.CHAT, Reply.text("fine"), Reply.text("never").after(60))
    with receiving(FINE) as hook, receiving(FINE) as switch:
        more = f', heartbeat: "{switch.url("/uuid")}", max_runs: 2'
        configure(house, primary, hook, more=more, fallback="groq/small")
        with house.daemon() as daemon:
            eventually(lambda: len(switch.taken) == 3)
            kill(daemon)
        with house.daemon():
            eventually(lambda: len(switch.taken) == 4)
            eventually(lambda: len(notices(hook)) == 2)

    asked = [each.path.partition("?rid=") for each in switch.taken]
    assert [path for path, _, _ in asked] == ["/uuid/start", "/uuid", "/uuid/start", "/uuid/fail"]
    ids = [rid for _, _, rid in asked]
    assert (ids[0], ids[2]) == (ids[1], ids[3])
    assert ids[0] != ids[2]
    assert set(told(hook)) == {("provider_keyless", "opened"), ("run_abandoned", "opened")}
