"""Runs that are at work while a reload removes or changes their jobs: they end as they began."""

import asyncio
import json
import signal
import threading
from typing import Any

from support.hostile import said
from support.http_peer import answer
from support.receiver import receiving
from support.workplace import Workplace, eventually

TEXT = "All is well."
MESSAGE = {"role": "assistant", "content": TEXT}
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "small",
    "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}],
}
BEFORE = """
timezone: Asia/Tokyo
model: {{provider: custom, base_url: "{model}", model: small, api_key: no-key-required}}
delivery:
  inbox: {{file: "out/{{job}}.md"}}
  leaves: {{file: "out/leaves-{{job}}.md"}}
jobs:
  - {{name: removed, schedule: every 1s, max_runs: 1, prompt: x, deliver: [inbox, leaves],
     heartbeat: "{switch}/removed"}}
  - {{name: changed, schedule: every 1s, max_runs: 1, prompt: x, deliver: inbox,
     heartbeat: "{switch}/changed"}}
"""
AFTER = """
timezone: Asia/Tokyo
model: {{provider: custom, base_url: "{model}", model: small, api_key: no-key-required}}
delivery:
  inbox: {{file: "out/{{job}}.md"}}
jobs:
  - {{name: changed, schedule: null, prompt: y}}
"""


class Held:
    """A model that answers everybody once it is let."""

    def __init__(self) -> None:
        self.free = threading.Event()

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        while not self.free.is_set():
            await asyncio.sleep(0.01)
        kind = "content-type: application/json"
        await said(answer(200, kind, body=json.dumps(ANSWER).encode()))(writer)


def settled(place: Workplace) -> list[dict[str, Any]] | None:
    found = place.rows("SELECT target, state, last_error FROM deliveries ORDER BY target, state")
    return found if found and all(row["state"] != "pending" for row in found) else None


def test_a_run_whose_job_is_removed_or_changed_meanwhile_ends_as_it_began(workplace: Workplace) -> None:
    """Its result goes where it was to go, and its switch hears its end; a target that is gone is told of."""
    held = Held()
    with receiving(held) as model, receiving(said(answer(200))) as switch:
        places = {"model": model.url("/v1"), "switch": switch.url("")}
        workplace.configure(BEFORE.format(**places))
        with workplace.daemon() as daemon:
            eventually(lambda: model.connections == 2 and len(switch.taken) == 2)
            workplace.configure(AFTER.format(**places))
            daemon.signal(signal.SIGHUP)
            eventually(lambda: "reloaded: " in daemon.log.read_text())
            held.free.set()
            found = eventually(lambda: (rows := settled(workplace)) and len(rows) == 3 and rows)
            eventually(lambda: len(switch.taken) == 4)

    paths = [each.path.partition("?")[0] for each in switch.taken]
    inbox, other, leaves = found
    assert [inbox["state"], other["state"], leaves["state"]] == ["delivered", "delivered", "failed"]
    assert leaves["last_error"].startswith("no delivery target named 'leaves'; put it back")
    assert sorted(each.name for each in (workplace.directory / "state" / "out").iterdir()) == [
        "changed.md",
        "removed.md",
    ]
    assert sorted(paths[:2]) == ["/changed/start", "/removed/start"]
    assert sorted(paths[2:]) == ["/changed", "/removed"]
