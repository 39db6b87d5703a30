"""What the daemons of the crash harness are configured with: jobs for every way of being due and ending."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from support.crash.receiver import HOOK, INBOX, PIPE, Heard

ENVIRON = MappingProxyType({"CRASH_KEY": "sk-of-the-crash-harness", "TZ": "UTC", "LANG": "C.UTF-8"})
RERUN = frozenset({"rerun"})
_PROMPT = "{{ job }} {{ scheduled_for | localtime('%Y-%m-%dT%H:%M:%S') }}"
_HEAD = """
timezone: UTC
state_dir: {state}
server: {{listen: "off"}}
logging: {{level: warning, format: json}}
limits: {{keep_runs: 1000000, drain_timeout: 1s}}
providers:
  house: {{base_url: "{origin}/house/v1", credentials: [{{label: main, key: "env:CRASH_KEY"}}]}}
  weak: {{base_url: "{origin}/weak/v1", credentials: [{{label: main, key: "env:CRASH_KEY"}}]}}
  spare: {{base_url: "{origin}/spare/v1", credentials: [{{label: main, key: "env:CRASH_KEY"}}]}}
model: house/quick
delivery:
  hook: {{webhook: "{hook}", timeout: 10m}}
  inbox: {{file: "{inbox}/{{job}}/{{run_id}}.md"}}
  pipe: {{command: ["/bin/sh", "-c", "echo $PROMPTD_DELIVERY_KEY $PROMPTD_RUN_ID >> {pipe}"]}}
defaults: {{enabled: {enabled}, timeout: 20s}}
jobs:
"""
_JOBS = MappingProxyType(
    {
        "forbid": "schedule: every 1s, model: house/slow",
        "rerun": "schedule: every 1s, model: house/slow, on_crash: rerun",
        "queue": "schedule: every 1s, model: house/slower, concurrency: queue",
        "allow": "schedule: every 2s, model: house/slower, concurrency: allow",
        "replace": "schedule: every 2s, model: house/slower, concurrency: replace, jitter: 1s",
        "parent": "schedule: every 2s, model: house/still",
        "follower": "schedule: null, after: [parent], on_crash: abandon",
        "retry": "schedule: every 2s, model: house/faulty,"
        " retry: {max: 2, delays: [1s, 1s], on: [bad_request]}",
        "jitter": "schedule: every 2s, jitter: 1s",
        "listed": 'schedule: ["*/2 * * * * *", "*/3 * * * * *"]',
        "caught-up": "schedule: every 3s, catch_up: all",
        "not-caught-up": "schedule: every 2s, catch_up: none, model: weak/shaky",
        "backed": "schedule: every 2s, model: weak/faulty, fallback: [spare/quick]",
        "doomed": "schedule: every 2s, model: house/doomed, pause_after_failures: 3",
        "judged": "schedule: every 2s, model: house/slow, on_truncated: fail",
        "ending": "schedule: every 1s, max_runs: 20",
        "wavering": "schedule: every 1s, model: house/wavering",
    }
)
DELIVERED: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "forbid": {HOOK: "always", INBOX: "failure"},
        "rerun": {HOOK: "success"},
        "queue": {HOOK: "success", INBOX: "always"},
        "allow": {HOOK: "failure"},
        "parent": {HOOK: "changed"},
        "caught-up": {PIPE: "success"},
        "backed": {INBOX: "success"},
        "doomed": {HOOK: "failure"},
        "wavering": {HOOK: "failure"},
    }
)
"""Where the runs of some jobs go, and which of them."""

TOLD = (HOOK, INBOX)
"""Where alerts go."""

_ALERTS = f"alerts: {{to: [{', '.join(TOLD)}], after_failures: 1}}\n"
_EVERY = MappingProxyType(
    {
        **dict.fromkeys(("forbid", "rerun", "queue", "wavering"), 1),
        **dict.fromkeys(
            ("allow", "replace", "parent", "retry", "jitter", "not-caught-up", "backed", "judged"), 2
        ),
        "caught-up": 3,
    }
)


@dataclass(frozen=True, slots=True)
class World:
    """A directory with one configuration, whose jobs come and go with its `variant`."""

    directory: Path
    origin: str
    hook: str

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "promptd.yaml"

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.directory / "state"

    @property
    def database(self) -> Path:
        """The database file."""
        return self.state / "promptd.db"

    def configure(self, variant: int = 0, *, enabled: bool = True, jobs: Mapping[str, str] = _JOBS) -> None:
        """Write the configuration, whole or not at all; `variant` says what is beside the steady jobs."""
        places = {"hook": self.hook, "inbox": self._inbox, "pipe": self._pipe}
        head = _HEAD.format(state=self.state, origin=self.origin, enabled=str(enabled).lower(), **places)
        written = {**jobs, **_shifting(variant)} if jobs else {}
        lines = [
            f'  - {{name: {name}, {keys}, deliver: [{_delivered(name)}], prompt: "{_PROMPT}"}}\n'
            for name, keys in written.items()
        ]
        draft = self.config.with_suffix(".new")
        draft.write_text(head + "".join(lines) + (_ALERTS if lines else "  []\n"), "utf-8")
        draft.replace(self.config)

    def heard(self) -> list[Heard]:
        """Return what the command has taken, and what stands in the files of runs and alerts."""
        lines = self._pipe.read_text("ascii").splitlines() if self._pipe.exists() else ()
        piped = [Heard(PIPE, key, int(run_id)) for key, run_id in map(str.split, lines)]
        files = (each for job in DELIVERED for each in self._inbox.glob(f"{job}/[0-9]*.md"))
        notices = self._inbox.glob("_alerts/[0-9]*.md")
        return [
            *piped,
            *(
                Heard(INBOX, None, int(each.stem), text=each.read_text("utf-8").rstrip("\n"))
                for each in files
            ),
            *(Heard(INBOX, None, alert_id=int(each.stem)) for each in notices),
        ]

    @property
    def _inbox(self) -> Path:
        return self.directory / INBOX

    @property
    def _pipe(self) -> Path:
        return self.directory / PIPE


def _delivered(job: str) -> str:
    wanted = DELIVERED.get(job, {})
    return ", ".join(f'{{to: {target}, "on": {on}}}' for target, on in wanted.items())


def _shifting(variant: int) -> dict[str, str]:
    jobs = {"shifting": f"schedule: every {1 + variant % 3}s"}
    return jobs if variant % 2 else {**jobs, "coming-and-going": "schedule: every 1s, catch_up: all"}


def due_of(job: str, seen: datetime, until: datetime) -> list[datetime] | None:
    """Return when a steady job was due after its first sight; None for a job of another kind.

    What is due every so often is counted from the whole second in which the job was seen first.
    """
    anchor = seen.replace(microsecond=0)
    if job == "listed":
        passed = range(1, int((until - anchor).total_seconds()) + 1)
        seconds = (anchor + timedelta(seconds=number) for number in passed)
        return [second for second in seconds if second.second % 2 == 0 or second.second % 3 == 0]
    if job not in _EVERY:
        return None
    step = timedelta(seconds=_EVERY[job])
    return [anchor + number * step for number in range(1, (until - anchor) // step + 1)]
