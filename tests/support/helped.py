"""A job whose command prints 400 lines, the targets that may answer it, and a provider that helps."""

import re
from dataclasses import dataclass
from typing import Any

from jobs.providers.loopback_replies import Received, Reply, Wire
from jobs.providers.loopback_thread import ThreadedLoopback
from support.workplace import Workplace

LINES = [f"line {number:04}: the disk is full again\n" for number in range(400)]
GATHERED = "".join(LINES)
BEFORE, AFTER = "Summarise what follows, and keep every word of this.", "That was all of it."
SYSTEM = "You are terse, and nobody may shorten you."
CONFIG = """
model: {{provider: custom, name: main, base_url: "{main}", model: large, api_key: main-key}}
fallback_providers:
  - {{provider: custom, name: backup, base_url: "{backup}", model: other, api_key: backup-key}}
providers:
  house:
    base_url: {helper}
    credentials: [{{label: one, key: env:HOUSE_KEY}}]
{more}
limits: {{drain_timeout: 1s}}
jobs:
  - name: digest
    schedule: every 1s
    system: "{system}"
    prompt: "{before}\\n{{{{ gathered }}}}\\n{after}"
    gather: {{command: [cat, log.txt]}}
    {keys}
"""
COMPRESSION = "auxiliary: {compression: {provider: house, model: small}}"
CHAT_OVERFLOW = Reply.error(400, code="context_length_exceeded", message="This is too long for the model.")
TOO_LARGE = Reply.error(413, message="Payload Too Large")
NOT_YOU = Reply.error(401, code="invalid_api_key", message="Incorrect API key provided.")
SUMMARY = "400 times in a row the disk was full."


@dataclass(frozen=True)
class Place:
    """A workplace whose job gathers 400 lines, and the three providers that it may ask."""

    workplace: Workplace
    main: ThreadedLoopback
    backup: ThreadedLoopback
    helper: ThreadedLoopback

    def configure(self, more: str = "", keys: str = "", gathered: str = GATHERED) -> None:
        """Write the configuration and what is gathered; `keys` belong to the job."""
        self.workplace.environ["HOUSE_KEY"] = "house-key"
        (self.workplace.directory / "log.txt").write_text(gathered)
        addresses = {"main": self.main.base_url, "backup": self.backup.base_url}
        texts = {"system": SYSTEM, "before": BEFORE, "after": AFTER}
        self.workplace.configure(
            CONFIG.format(**addresses, **texts, helper=self.helper.base_url, more=more, keys=keys)
        )

    def run(self) -> Any:
        """Run the job once, by hand."""
        return self.workplace.ran("job", "run", "digest")

    def status(self, provider: str) -> str:
        """Return how a provider's first credential stands."""
        return str(self.workplace.credential(provider)["status"])


def holding(limit: int, answer: str, refusal: Reply = CHAT_OVERFLOW) -> Reply:
    """Return the answers of a model that takes so many characters, and refuses more."""
    good = Reply.text(answer)

    def wire(received: Received) -> Wire:
        return (good if len(received.prompt) <= limit else refusal).wire(received)

    return Reply(wire)


def steps(run: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return who was asked for what, what came of it, and what was done next."""
    return [(a["purpose"], a["provider"], a["error_class"], a["recovery"]) for a in run["attempts"]]


def material_of(request: Received) -> str:
    """Return what a helper was given to shorten."""
    found = re.fullmatch(r"<material>\n(.*)\n</material>", request.prompt, re.DOTALL)
    assert found, request.prompt[:200]
    return found[1]
