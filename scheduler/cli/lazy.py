"""Groups of commands that are known by name and one line, and are imported when they are used."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType

import click
from click.shell_completion import CompletionItem

_AS_PYTHON_DOES = gc.get_threshold()
_NEW_OBJECTS = 100_000  # importing what a command needs makes three times as many, and they all stay


@contextmanager
def short_life() -> Iterator[None]:
    """Spare a process that ends soon a fifth of its work: looking for garbage among what it has just made.

    It is looked for after every 100,000 objects, and not at all as the process ends.
    """
    gc.set_threshold(_NEW_OBJECTS)
    try:
        yield
    finally:
        gc.freeze()


def long_life() -> None:
    """Look for garbage as Python does by itself; what there is by now stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_AS_PYTHON_DOES)


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: its line in the help, and where it is written (`module:attribute`).

    A group of commands has no place of its own; it has `commands`. What is `in_daemon` is carried out by a
    running daemon, since it needs state or secrets; `changes` says that it is more than reading, `waits` that
    it waits for providers or people. `files` are its options that name a file to be read, which the caller
    opens, each with its default. A `hidden` one is not listed: another command asks for it.
    """

    help: str
    place: str = ""
    commands: "Mapping[str, Entry] | None" = None
    in_daemon: bool = False
    changes: bool = False
    waits: bool = False
    files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    hidden: bool = False

    def made(self, name: str) -> click.Command:
        """Return the command itself: a group from its table, anything else by importing it."""
        if self.commands is not None:
            return LazyGroup(name=name, help=self.help, table=self.commands, no_args_is_help=True)
        module, _, attribute = self.place.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


class LazyGroup(click.Group):
    """A group whose help and completion read a table: no command is imported to be listed."""

    def __init__(self, *, table: Mapping[str, Entry], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type] # click's own settings, passed on as they are
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return [name for name, entry in self.table.items() if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command, imported now."""
        entry = self.table.get(cmd_name)
        return entry.made(cmd_name) if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant; one that a daemon may carry out is not imported before that."""
        entry = self.table.get(args[0])
        needs_help = any(arg in ("-h", "--help") for arg in args)
        if entry is None or not entry.in_daemon or ctx.resilient_parsing or needs_help:
            return super().resolve_command(ctx, args)
        from scheduler.cli.forward import Forwarded  # noqa: PLC0415 - help and other commands do without

        return (
            args[0],
            Forwarded(args[0], entry=entry),
            args[1:],
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.table[name].help) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of the table, and the group's own options."""
        named = [
            CompletionItem(name, help=self.table[name].help)
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]
