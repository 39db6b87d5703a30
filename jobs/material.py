"""What a prompt is filled with: what a command prints, and what jobs have answered before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from jobs.commands import Commands
from jobs.definition import Job
from jobs.prompt import asks_for
from jobs.redaction import redacted
from jobs.secret import Redactor
from jobs.store.outputs import newest_outputs
from jobs.store.store import Store


@dataclass(frozen=True, slots=True)
class Material:
    """The texts in a prompt that may be made shorter, unlike its instructions.

    `context` is by job. A text that no template asks for, or that is not there yet, is empty.
    """

    gathered: str = ""
    last_output: str = ""
    context: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts, in the order that `replaced` takes them in."""
        return (self.gathered, self.last_output, *self.context.values())

    @property
    def length(self) -> int:
        """How many characters there are."""
        return sum(map(len, self.texts))

    @property
    def names(self) -> Mapping[str, Any]:
        """What templates call these texts."""
        return {"gathered": self.gathered, "last_output": self.last_output, "context": self.context}

    def replaced(self, texts: Sequence[str]) -> "Material":
        """Return the same material with other texts."""
        gathered, last_output, *context = texts
        return Material(gathered, last_output, dict(zip(self.context, context, strict=True)))


async def collect(job: Job, *, commands: Commands, store: Store, redactor: Redactor) -> Material:
    """Run the job's command and read the outputs that its templates ask for; raises CommandFailed.

    No key of ours goes to a model because a command has printed it, or a model before had said it.
    """
    printed = await commands.output_of(job.gather) if job.gather else ""
    asked = {
        name for name in ("gathered", "last_output", "context") if asks_for(name, job.prompt, job.system)
    }
    others = job.context_from if "context" in asked else ()
    own = (job.name,) if "last_output" in asked else ()
    outputs = await store.insist_on_reading(newest_outputs, (*own, *others)) if own or others else {}
    shown = {name: await redacted(redactor.own, text) for name, text in outputs.items()}
    return Material(
        gathered=printed if "gathered" in asked else "",
        last_output=shown[job.name] if own else "",
        context={name: shown.get(name, "") for name in job.context_from},
    )
