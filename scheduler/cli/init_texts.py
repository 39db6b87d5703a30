"""The two files that `promptd init` writes, as texts."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.cli.init_found import CODEX, Found

MOST_FALLBACKS = 4
APPRISE_VARIABLE = "PROMPTD_APPRISE_URL"
_PLAIN = re.compile(r"[A-Za-z][\w./@-]*(:[\w./@-]+)*")


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the first job's results go: the target's name, what is written of it, and what is to be done yet.

    `is_secret`: the file holds something that is not for everybody.
    """

    name: str
    written: str
    todo: str = ""
    is_secret: bool = False

    @classmethod
    def file(cls) -> "Delivery":
        """A file a day below the state directory."""
        return cls("inbox", '{file: "out/{job}/{scheduled_for:%Y-%m-%d}.md"}')

    @classmethod
    def webhook(cls, url: str) -> "Delivery":
        """A POST to a URL, or to what a reference such as env:NAME holds."""
        todo = f"set {url.removeprefix('env:')} to the webhook's URL" if url.startswith("env:") else ""
        return cls("hook", f"{{webhook: {json.dumps(url)}}}", todo, is_secret="://" in url)

    @classmethod
    def apprise(cls, variable: str) -> "Delivery":
        """Whatever service the Apprise URL in an environment variable names."""
        return cls("ops", f'{{apprise: "env:{variable}"}}', f"set {variable} to an Apprise URL")


@dataclass(frozen=True, slots=True)
class Answers:
    """What a configuration is made of. Without `timezone` it is the machine's; `delivery` None: none."""

    primary: Found
    fallbacks: Sequence[Found] = ()
    timezone: str | None = None
    delivery: Delivery | None = None


def config_text(answers: Answers) -> str:
    """Return promptd.yaml."""
    zone = answers.timezone
    return _CONFIG.format(
        primary=_written(answers.primary.target),
        why=answers.primary.why,
        fallbacks=_fallbacks(answers),
        zone=f"timezone: {_written(zone)}"
        if zone
        else "# timezone: Europe/Berlin          # default: this machine's",
        delivery=_delivery(answers.delivery),
    )


def job_text(answers: Answers) -> str:
    """Return jobs.d/hello.yaml."""
    place = answers.delivery
    deliver = (
        f"deliver: [{place.name}]" if place else "# deliver: [inbox]           # a name under `delivery:`"
    )
    return f"{_JOB}{deliver}\n"


def _fallbacks(answers: Answers) -> str:
    usable = [each for each in answers.fallbacks if each.is_complete and each.provider != CODEX]
    lines = [f"  - {_written(each.target)}  # {each.why}\n" for each in usable[:MOST_FALLBACKS]]
    if lines:
        return f"{_ASKED_NEXT}\n{''.join(lines)}"
    return f"# {_ASKED_NEXT}\n#   - zai/glm-5.1\n"


def _delivery(place: Delivery | None) -> str:
    if place is not None:
        return f"delivery:\n  {place.name}: {place.written}\n"
    return (
        "# delivery:                        # where results go; a job names one with `deliver: [inbox]`\n"
        f"#   inbox: {Delivery.file().written}\n"
        f"#   ops: {Delivery.apprise(APPRISE_VARIABLE).written}   # Slack, Discord, Telegram, e-mail, …\n"
    )


def _written(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


_ASKED_NEXT = "fallback_providers:  # asked in this order when the one before fails"

_CONFIG = """\
# promptd's configuration. `promptd check` says whether it is sound, `promptd config schema` describes it.

model: {primary}  # {why}
{fallbacks}
{zone}
# state_dir: /var/lib/promptd      # default: ~/.local/state/promptd
# server: {{listen: 127.0.0.1:9464}} # /metrics /healthz /readyz; "off" to serve nothing

{delivery}
# Jobs can stand here under `jobs:`, or one to a file in jobs.d/ beside this file.
"""

_JOB = """\
# One job. Change the prompt, then: promptd job run hello
name: hello
schedule: "0 7 * * mon-fri"  # five cron fields; or @daily, every 90s, at 2030-01-01T09:00
prompt: |
  It is {{ now | localtime("%A %d %B") }}. Say good morning, and name one thing worth knowing about this date.
"""
