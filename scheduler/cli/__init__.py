"""The command line, `promptd`: listing commands imports click only; each is imported when it is used."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from scheduler import __version__
from scheduler.cli.context import Context
from scheduler.cli.edge import exit_code_of, pipe_closed
from scheduler.cli.lazy import Entry, LazyGroup

_HERE = "scheduler.cli"

COMMANDS: Mapping[str, Entry] = MappingProxyType(
    {
        "init": Entry("Write a commented promptd.yaml and a first job.", f"{_HERE}.init:init"),
        "demo": Entry("See a fallback happen: no key, no network, no configuration.", f"{_HERE}.demo:demo"),
        "check": Entry("Check the configuration and its secrets; start nothing.", f"{_HERE}.check:check"),
        "start": Entry("Run the daemon in the foreground.", f"{_HERE}.service:start"),
        "status": Entry("Say how the daemon, jobs, runs and credentials stand.", f"{_HERE}.status:status"),
        "ask": Entry("Send one prompt now, through the whole chain.", f"{_HERE}.ask:ask"),
        "explain": Entry("Say whom a job's next run would ask, and why.", f"{_HERE}.explain:explain"),
        "drill": Entry("Run a job while providers fail; mark nobody.", f"{_HERE}.drill:drill"),
        "classify": Entry("Say what a provider's answer means.", f"{_HERE}.classify:classify"),
        "config": Entry(
            "Show the effective configuration, or its schema.",
            commands=MappingProxyType(
                {
                    "show": Entry("Print every value, and where it comes from.", f"{_HERE}.config:show"),
                    "schema": Entry("Print the JSON Schema of promptd.yaml.", f"{_HERE}.config:schema"),
                }
            ),
        ),
        "job": Entry(
            "List jobs, see when they are due, run one now.",
            commands=MappingProxyType(
                {
                    "list": Entry("List every job and how it stands.", f"{_HERE}.job:list_"),
                    "show": Entry("Show one job: its schedule, chain and prompt.", f"{_HERE}.job:show"),
                    "next": Entry("Print the next due times.", f"{_HERE}.job_next:next_"),
                    "run": Entry("Run a job now.", f"{_HERE}.job_run:run"),
                }
            ),
        ),
        "run": Entry(
            "Look at runs: what was asked, who answered, what it said.",
            commands=MappingProxyType(
                {
                    "list": Entry("List runs, newest first.", f"{_HERE}.run:list_"),
                    "show": Entry("Show one run with every attempt and delivery.", f"{_HERE}.run:show"),
                    "output": Entry("Print a run's output and nothing else.", f"{_HERE}.run:output"),
                }
            ),
        ),
        "auth": Entry(
            "Log in and out; see, explain and reset credentials.",
            commands=MappingProxyType(
                {
                    "list": Entry("List credentials and how they stand.", f"{_HERE}.auth:list_"),
                    "why": Entry("Print the attempts behind each mark.", f"{_HERE}.auth:why"),
                    "reset": Entry("Lift the marks on a provider's credentials.", f"{_HERE}.auth:reset"),
                    "login": Entry("Log in, with a browser anywhere.", f"{_HERE}.auth_login:login"),
                    "import": Entry("Take over a login from another tool.", f"{_HERE}.auth_import:import_"),
                    "remove": Entry("Forget a provider's login.", f"{_HERE}.auth_remove:remove"),
                }
            ),
        ),
        "provider": Entry(
            "See which providers are known, and whether they answer.",
            commands=MappingProxyType(
                {
                    "list": Entry("List providers and their credentials.", f"{_HERE}.provider:list_"),
                    "show": Entry("Show one provider and who uses it.", f"{_HERE}.provider_show:show"),
                    "check": Entry("Ask once with each credential.", f"{_HERE}.provider_check:check"),
                }
            ),
        ),
        "db": Entry(
            "Migrate the database, or see its revision.",
            commands=MappingProxyType(
                {
                    "upgrade": Entry("Migrate to this version; backup first.", f"{_HERE}.db:upgrade"),
                    "current": Entry("Print the database's revision.", f"{_HERE}.db:current"),
                }
            ),
        ),
    }
)


class Promptd(LazyGroup):
    """The root group; a reader of our output that goes away ends the program quietly."""

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke, and see that everything written has left."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            return pipe_closed()
        return result


@click.group(
    "promptd",
    cls=Promptd,
    table=COMMANDS,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The configuration file.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an unexpected error.")
@click.option("--no-color", is_flag=True, help="Print without colour; so does the variable NO_COLOR.")
@click.version_option(__version__, "--version", prog_name="promptd", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, config: Path | None, verbose: bool, no_color: bool) -> None:
    """Run recurring prompts against providers that fail."""
    context = ctx.ensure_object(Context)
    color = not (no_color or context.environ.get("NO_COLOR"))
    ctx.color = None if color else False
    context.config, context.verbose, context.color = config, verbose, color


def main(args: Sequence[str] | None = None, *, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command and return its exit code; every error ends here, as one line that says what to do."""
    context = Context(environ=environ)
    try:
        result = cli.main(args, prog_name="promptd", standalone_mode=False, obj=context)
    except Exception as exc:  # the very edge: what nobody expected is told here, and nowhere else
        return exit_code_of(exc, verbose=context.verbose, redactor=context.redactor)
    return result if isinstance(result, int) else 0
