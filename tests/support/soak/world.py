"""What the soaked daemon is configured with: a thousand jobs of every kind, and where their results go."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

KEY = "sk-of-the-soak"
ENVIRON = MappingProxyType({"SOAK_KEY": KEY, "SOAK_SECRET": "the-secret-of-the-soak", "TZ": "UTC"})
FAULTY = ("busy", "broken", "cut", "slow", "hanging", "denied")
"""Providers, each with its own way to fail; `calm` never does."""

TARGETS = ("inbox", "hook", "flaky", "gone", "print")
JOBS = 1_000
_HEAD = """
timezone: UTC
state_dir: {directory}/state
server: {{listen: "127.0.0.1:0"}}
logging: {{level: info, format: json}}
limits: {{keep_runs: 200, drain_timeout: 5s, max_concurrent_runs: 32}}
model: calm/small
providers:
{providers}
delivery:
  inbox: {{file: "out/{{job}}.md"}}
  hook: {{webhook: "{receiver}/good", secret: "env:SOAK_SECRET", timeout: 20s}}
  flaky: {{webhook: "{receiver}/flaky", timeout: 2s}}
  gone: {{webhook: "{receiver}/gone", timeout: 20s}}
  print: {{command: [cat], timeout: 20s}}
alerts: {{to: [inbox], after_failures: 3}}
defaults: {{enabled: {enabled}, timeout: 5s}}
jobs:
"""
_PROVIDER = (
    '  {name}: {{base_url: "{origin}/{name}/v1", timeout: 1s, '
    'credentials: [{{label: main, key: "env:SOAK_KEY"}}]}}\n'
)
_RETRIED = "model: broken/broken, fallback: none, retry: {max: 1, delays: [2s]}"
_FAULT = "\nno_such_key: 1\n"


@dataclass(frozen=True, slots=True)
class World:
    """A directory, and the addresses of the provider and the receiver."""

    directory: Path
    origin: str
    receiver: str

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "promptd.yaml"

    @property
    def database(self) -> Path:
        """The database file."""
        return self.directory / "state" / "promptd.db"

    def configure(self, variant: int = 0, *, enabled: bool = True, good: bool = True) -> None:
        """Write the configuration, whole or not at all; a job of it changes with `variant`."""
        providers = (_PROVIDER.format(name=name, origin=self.origin) for name in ("calm", *FAULTY))
        head = _HEAD.format(
            directory=self.directory,
            receiver=self.receiver,
            providers="".join(providers),
            enabled=str(enabled).lower(),
        )
        lines = (f"  - {{name: {name}, {keys}}}\n" for name, keys in jobs(variant).items())
        draft = self.config.with_suffix(".new")
        draft.write_text(head + "".join(lines) + ("" if good else _FAULT), "utf-8")
        draft.replace(self.config)


def jobs(variant: int = 0) -> Mapping[str, str]:
    """Return the keys of every job, by name: a thousand."""
    found = dict(_busy_jobs())
    found["shifting"] = f"schedule: every {3 + variant % 3}s, prompt: 'Variant {variant}.'"
    rest = range(JOBS - len(found))
    return found | {
        f"daily-{number}": f'schedule: "{number % 60} 7 * * *", prompt: Hello.' for number in rest
    }


def _busy_jobs() -> Iterator[tuple[str, str]]:
    for number in range(300):
        yield f"spread-{number}", f"schedule: every 40s, jitter: 30s, {_template(number)}{_deliver(number)}"
    for number in range(200):
        yield f"cron-{number}", f'schedule: "*/30 * * * * *", {_template(number)}'
    for kind in FAULTY:
        for number in range(6):
            chain = "fallback: [calm/small]" if number % 2 else "fallback: none"
            goes_to = f"deliver: [{{to: {TARGETS[number % 3]}, on: always}}]"
            yield (
                f"{kind}-{number}",
                f"schedule: every 5s, model: {kind}/{kind}, {chain}, prompt: Hi., {goes_to}",
            )
    for number in range(10):
        yield f"after-{number}", f"schedule: null, after: [spread-{number}], prompt: '{{{{ job }}}}'"
        yield f"gather-{number}", "schedule: every 20s, gather: [echo, news], prompt: '{{ gathered }}'"
        yield f"retried-{number}", f"schedule: every 20s, {_RETRIED}, prompt: Hi."


def _template(number: int) -> str:
    loop = "{% for word in [1, 2, 3] %}{{ word }} {% endfor %}" if number % 2 else "{{ last_output[:50] }}"
    return f"prompt: 'Say {number} at {{{{ now }}}}: {loop}'"


def _deliver(number: int) -> str:
    if number >= 100:
        return ""
    target = TARGETS[number % 3] if number < 90 else TARGETS[3 + number % 2]
    return f", deliver: [{{to: {target}, on: always}}]"


def wanted(job: str) -> str | None:
    """Return the target to which each ended run of a job goes, None where it goes nowhere."""
    _, found, after = jobs().get(job, "").partition("deliver: [{to: ")
    return after.partition(",")[0] if found else None
