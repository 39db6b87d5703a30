"""What a process that is gone has left is settled by a daemon that stays up."""

import subprocess

from support.workplace import PROMPTD, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: house/m
providers:
  house: {{base_url: "{url}", credentials: [{{label: main, key: "env:HOUSE"}}]}}
jobs:
  - {{name: digest, schedule: every 2s, prompt: "Summarise."}}
"""


def test_a_killed_command_does_not_block_its_job(workplace: Workplace, primary: ThreadedLoopback) -> None:
    workplace.environ["HOUSE"] = "sk-house-key"
    workplace.configure(CONFIG.format(url=primary.base_url))
    primary.script(Endpoint.CHAT, Reply.text("never said").silent(), Reply.text("fine"))
    words = [str(PROMPTD), "--config", str(workplace.config), "job", "run", "digest"]
    command = subprocess.Popen(words, cwd=workplace.directory, env=workplace.environment())
    primary.wait_received(1)

    with workplace.daemon():
        command.kill()
        command.wait()
        answered = eventually(
            lambda: [r for r in workplace.json("run", "list") if r["state"] == "succeeded"] or None
        )
        left = workplace.shown(1)

    assert answered
    assert (left["trigger"], left["state"]) == ("manual", "abandoned")
    assert [attempt["outcome"] for attempt in left["attempts"]] == ["unknown"]
