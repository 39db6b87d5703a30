"""A daemon whose database is in trouble while its provider answers, and what has to be true afterwards."""

from datetime import timedelta

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback
from support.accounts import PROMPT, asked_once_each, each_has_one
from support.workplace import DaemonProcess, Workplace

TAKES_NO_WRITES = "the database takes no writes: "
TAKES_WRITES_AGAIN = "the database takes writes again, after"
ANSWER = "worth keeping"
CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
jobs:
  - {{name: pulse, schedule: every 1s, prompt: "{prompt}"}}
"""


def configure(workplace: Workplace, provider: ThreadedLoopback) -> None:
    """Let a job run every second; the first answer is held until the provider is told to let it go."""
    workplace.configure(CONFIG.format(url=provider.base_url, prompt=PROMPT))
    provider.script(Endpoint.CHAT, Reply.text(ANSWER).held(), Reply.text("back again"))


def said(daemon: DaemonProcess, words: str) -> bool:
    """Say whether the daemon has logged this."""
    return words in daemon.log.read_text("utf-8")


def nothing_is_lost(workplace: Workplace, provider: ThreadedLoopback) -> None:
    """Assert that the first answer is there, every instant has its row, and nothing was asked twice."""
    first = workplace.rows("SELECT state, output, tries FROM runs ORDER BY id LIMIT 1")
    assert first == [{"state": "succeeded", "output": ANSWER, "tries": 1}]
    assert {row["outcome"] for row in workplace.rows("SELECT outcome FROM attempts")} == {"succeeded"}
    each_has_one(workplace, "pulse", timedelta(seconds=1))
    asked_once_each(provider, workplace)
    audited = workplace.run("audit")
    assert audited.code == 0, audited
