"""Commands: a program reads the text from its standard input, and what it is about from its environment."""

from collections.abc import Mapping

from jobs.commands import Commands, Given
from jobs.delivery import limits
from jobs.delivery.message import Message, one_line
from jobs.delivery.target import CommandTarget

_FACTS = (
    *("job", "run_id", "scheduled_for", "trigger", "state", "reason", "title", "fallback", "truncated"),
    *("alert_id", "alert", "notice", "provider", "credential", "target"),
)


async def feed(target: CommandTarget, message: Message, *, commands: Commands) -> None:
    """Deliver a message to a command; raises CommandFailed where it does not end with 0, in time."""
    text, _ = limits.fitted(message, limits.COMMAND_BYTES)
    await commands.output_of(target.command, given=Given(text.encode(), variables(message)))


def variables(message: Message) -> Mapping[str, str]:
    """Return what a command is told: PROMPTD_SUBJECT, PROMPTD_JOB and so on, each one printable line.

    A fact that is unknown has no variable; true and false are `true` and `false`.
    """
    facts = {
        "delivery_key": message.key,
        "kind": str(message.kind),
        "subject": message.subject,
        **{name: message.facts.get(name) for name in _FACTS},
    }
    return {f"PROMPTD_{name.upper()}": _written(value) for name, value in facts.items() if value is not None}


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else one_line(str(value))
