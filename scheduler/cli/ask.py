"""`promptd ask`: one prompt, now, through the same loop as every job."""

import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING

import click

from jobs.errors import UsageError
from scheduler.cli.context import Context, pass_context
from scheduler.cli.job_run import say_waits, tell
from scheduler.cli.params import TEXT

if TYPE_CHECKING:
    from jobs.target import Target

# ruff: noqa: PLC0415 - the program that runs prompts is loaded when there is one to run

_LONGEST = 2_000_000


@click.command("ask")
@click.argument("prompt", type=TEXT)
@click.option("--provider", metavar="P", type=TEXT, help="Ask this provider first, in any spelling.")
@click.option("--model", metavar="M", type=TEXT, help="Ask this model of it.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as `run show --json` does.")
@pass_context
def ask(context: Context, prompt: str, provider: str | None, model: str | None, as_json: bool) -> int:
    """Send PROMPT (`-`: standard input) and print the answer only; exit 1 when nobody answers.

    The configured chain follows the chosen provider as its fallback.
    """
    from jobs.definition import ASK, Job
    from jobs.run import Trigger
    from scheduler.config.settings import ScheduledJob
    from scheduler.one_shot import run_now

    text = _read() if prompt == "-" else prompt
    if not text.strip() or len(text) > _LONGEST:
        raise UsageError(f"a prompt has between 1 and {_LONGEST:,} characters")
    settings = context.settings
    job = Job(
        name=ASK,
        prompt="{{ vars.prompt }}",
        chain=chain_of(context, provider, model),
        timeout=settings.job_timeout,
    )
    ended = run_now(
        settings,
        ScheduledJob(job, None, settings.timezone),
        trigger=Trigger.ASK,
        environ=context.environ,
        redactor=context.redactor,
        hear=say_waits,
        values={"prompt": text},
    )
    return tell(context, ended, as_json=as_json)


def _read() -> str:
    """Return what stands on standard input; raises UsageError for what is no UTF-8 text."""
    if sys.stdin is None:  # Python's word for one that is closed
        raise UsageError("standard input is closed; give the prompt as a word, or a file with `< FILE`")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    try:
        return sys.stdin.read(_LONGEST + 1)
    except UnicodeDecodeError:
        raise UsageError(
            "standard input is not UTF-8 text; convert it, such as with `iconv -t UTF-8`"
        ) from None


def chain_of(context: Context, provider: str | None, model: str | None) -> "tuple[Target, ...]":
    """Return the chosen target with the configured chain behind it; raises UsageError."""
    from jobs.providers.registry import ProviderFault

    configured = context.settings.chain
    if provider is None and model is None:
        if not configured:
            raise UsageError(
                "no model is configured; add `model: provider/name`, or give --provider and --model"
            )
        return configured
    if provider is None and not configured:
        raise UsageError("--model needs --provider where no model is configured")
    name = context.provider_name(provider) if provider is not None else configured[0].provider
    chosen = model or next((target.model for target in configured if target.provider == name), None)
    if chosen is None:
        raise UsageError(f"which model of {name}? give --model")
    try:
        first = context.registry.target(name, chosen)
    except ProviderFault as exc:
        raise UsageError(f"{exc.wrong}; {exc.mend}") from exc
    return (first, *(target for target in configured if target != first))
