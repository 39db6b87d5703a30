"""The command line, `promptd`: listing commands imports click only; each is imported when it is used."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

import scheduler
from scheduler.cli.context import Context
from scheduler.cli.edge import exit_code_of, open_closed_streams, pipe_closed
from scheduler.cli.lazy import Entry, LazyGroup, short_life

_HERE = "scheduler.cli"


def _reads(help_: str, place: str) -> Entry:
    """Return a command that reads state or secrets: a running daemon's, where there is one."""
    return Entry(help_, f"{_HERE}.{place}", in_daemon=True)


def _does(help_: str, place: str, files: Mapping[str, str] = MappingProxyType({})) -> Entry:
    """Return a command that changes state: a running daemon's, where there is one."""
    return Entry(help_, f"{_HERE}.{place}", in_daemon=True, changes=True, files=MappingProxyType(files))


def _waits(help_: str, place: str) -> Entry:
    """Return a command that waits for a provider, or for somebody at a browser."""
    return Entry(help_, f"{_HERE}.{place}", in_daemon=True, changes=True, waits=True)


COMMANDS: Mapping[str, Entry] = MappingProxyType(
    {
        "init": Entry("Write a commented promptd.yaml and a first job.", f"{_HERE}.init:init"),
        "demo": Entry("See a fallback happen: no key, no network, no configuration.", f"{_HERE}.demo:demo"),
        "check": _reads("Check the configuration and its secrets; start nothing.", "check:check"),
        "doctor": Entry("Look at what promptd needs, and say what mends it.", f"{_HERE}.doctor:doctor"),
        "doctor-inside": replace(_reads("Look at what is the daemon's own.", "doctor:inside"), hidden=True),
        "start": Entry("Run the daemon in the foreground.", f"{_HERE}.service:start"),
        "reload": Entry("Have the daemon apply a changed configuration.", f"{_HERE}.service:reload"),
        "stop": Entry("Have the daemon finish its work and end.", f"{_HERE}.service:stop"),
        "status": _reads("Say how the daemon, jobs, runs and credentials stand.", "status:status"),
        "ask": _waits("Send one prompt now, through the whole chain.", "ask:ask"),
        "explain": _reads("Say whom a job's next run would ask, and why.", "explain:explain"),
        "drill": _waits("Run a job while providers fail; mark nobody.", "drill:drill"),
        "classify": Entry("Say what a provider's answer means.", f"{_HERE}.classify:classify"),
        "audit": _reads("Prove that every due instant has its one row.", "audit:audit"),
        "config": Entry(
            "Show the effective configuration, or its schema.",
            commands=MappingProxyType(
                {
                    "show": Entry("Print every value, and where it comes from.", f"{_HERE}.config:show"),
                    "schema": Entry("Print the JSON Schema of promptd.yaml.", f"{_HERE}.config:schema"),
                    "explain": Entry("Say what one key means.", f"{_HERE}.config_explain:explain"),
                }
            ),
        ),
        "job": Entry(
            "List jobs, see when they are due, run, pause and edit them.",
            commands=MappingProxyType(
                {
                    "list": _reads("List every job and how it stands.", "job:list_"),
                    "show": _reads("Show one job: its schedule, chain and prompt.", "job:show"),
                    "next": _reads("Print the next due times.", "job_next:next_"),
                    "run": _waits("Run a job now.", "job_run:run"),
                    "pause": _does("Start no runs of a job until it is resumed.", "job_pause:pause"),
                    "resume": _does("Let a paused job fall due again.", "job_pause:resume"),
                    "add": Entry("Write a new job into jobs_dir.", f"{_HERE}.job_add:add"),
                    "edit": Entry("Edit a job's file, and check it.", f"{_HERE}.job_edit:edit"),
                    "remove": Entry("Remove a job's file; its history stays.", f"{_HERE}.job_edit:remove"),
                }
            ),
        ),
        "run": Entry(
            "Look at runs, cancel them, run them again.",
            commands=MappingProxyType(
                {
                    "list": _reads("List runs, newest first.", "run:list_"),
                    "show": _reads("Show one run with every attempt and delivery.", "run:show"),
                    "output": _reads("Print a run's output and nothing else.", "run:output"),
                    "cancel": _does("End a run that has not ended.", "run_cancel:cancel"),
                    "retry": _waits("Run again what has ended, as a new run.", "run_cancel:retry"),
                    "export": _reads("Write runs as CSV or JSON lines.", "run_export:export"),
                }
            ),
        ),
        "delivery": Entry(
            "See what was delivered, ask for it again, try a target.",
            commands=MappingProxyType(
                {
                    "list": _reads("List deliveries, newest first.", "delivery:list_"),
                    "retry": _does("Send again what has failed.", "delivery:retry"),
                    "test": _waits("Send a test message to a target now.", "delivery:test"),
                }
            ),
        ),
        "auth": Entry(
            "Log in and out; see, explain and reset credentials.",
            commands=MappingProxyType(
                {
                    "list": _reads("List credentials and how they stand.", "auth:list_"),
                    "why": _reads("Print the attempts behind each mark.", "auth:why"),
                    "reset": _does("Lift the marks on a provider's credentials.", "auth:reset"),
                    "login": _waits("Log in, with a browser anywhere.", "auth_login:login"),
                    "import": _does(
                        "Take over a login from another tool.",
                        "auth_import:import_",
                        {"--file": "~/.codex/auth.json"},
                    ),
                    "remove": _does("Forget a provider's login.", "auth_remove:remove"),
                }
            ),
        ),
        "provider": Entry(
            "See which providers are known, and whether they answer.",
            commands=MappingProxyType(
                {
                    "list": _reads("List providers and their credentials.", "provider:list_"),
                    "show": _reads("Show one provider and who uses it.", "provider_show:show"),
                    "check": _waits("Ask once with each credential.", "provider_check:check"),
                }
            ),
        ),
        "db": Entry(
            "Migrate the database, look after it, back it up.",
            commands=MappingProxyType(
                {
                    "upgrade": Entry("Migrate to this version; backup first.", f"{_HERE}.db:upgrade"),
                    "downgrade": Entry("Migrate back for an older version.", f"{_HERE}.db_back:downgrade"),
                    "current": _reads("Print the database's revision.", "db:current"),
                    "backup": _does("Write a verified copy while all goes on.", "db_care:backup"),
                    "restore": Entry("Put a backup in the database's place.", f"{_HERE}.db_back:restore_"),
                    "check": _reads("Check the database's integrity.", "db_care:check"),
                    "prune": _does("Remove runs that need not be kept.", "db_care:prune"),
                }
            ),
        ),
        "completion": Entry("Print a shell's completion script.", f"{_HERE}.completion:completion"),
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


def _say_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"promptd {scheduler.__version__}")
        ctx.exit()


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
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_say_version, help="Say which one."
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None, verbose: bool, no_color: bool) -> None:
    """Run recurring prompts against providers that fail."""
    context = ctx.ensure_object(Context)
    color = not (no_color or context.environ.get("NO_COLOR"))
    ctx.color = None if color else False
    context.config, context.verbose, context.color = config, verbose, color


def main(
    args: Sequence[str] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    in_force: bytes | None = None,
    nowhere: bool = False,
) -> int:
    """Run one command and return its exit code; every error ends here, as one line that says what to do.

    With `in_force` it is done for a daemon, in this process whatever it is: see `Context`. Without `args` it
    is the process's own command, and all that it does.
    """
    if args is None:
        with short_life():
            return main(sys.argv[1:], environ=environ)
    open_closed_streams()
    context = Context(environ=environ, in_force=in_force, nowhere=nowhere)
    try:
        result = cli.main(args, prog_name="promptd", standalone_mode=False, obj=context)
    except Exception as exc:  # the very edge: what nobody expected is told here, and nowhere else
        return exit_code_of(exc, verbose=context.verbose, redactor=context.redactor)
    return result if isinstance(result, int) else 0
