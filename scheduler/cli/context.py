"""What a command works with: options, environment, and configuration and database, opened when asked for."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs import clock
from jobs.secret import Redactor

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from jobs.names import ProviderName
    from jobs.providers.registry import Registry
    from jobs.providers.secret_files import SecretFiles
    from scheduler.config.loader import Loaded
    from scheduler.config.settings import Settings

# Imports inside functions keep `--help` and completion fast: each command pays only for what it uses.
# ruff: noqa: PLC0415


@dataclass
class Context:
    """The global options, and the way to everything heavy. One per invocation.

    `in_force` is what a daemon has handed over with a command that this process carries out for it.
    `nowhere`: the caller's directory cannot be entered here, so that relative paths mean nothing. `strict`: a
    prompt file that cannot be used is a fault.
    """

    config: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    verbose: bool = False
    color: bool = True
    in_force: bytes | None = None
    nowhere: bool = False
    strict: bool = False
    redactor: Redactor = field(default_factory=Redactor)

    @cached_property
    def loaded(self) -> "Loaded":
        """The configuration with the files it was made of; raises ConfigError.

        It is the one that is in force in a daemon, where that has handed it over, else the one on the disk.
        """
        from scheduler.config import loader
        from scheduler.config.paths import find

        path, now = find(self.config, self.environ), clock.utcnow()
        if self.in_force is not None:
            return loader.load_in_force(path, self.in_force, environ=self.environ, now=now)
        return loader.load_with_origins(path, environ=self.environ, now=now, strict=self.strict)

    @cached_property
    def secret_files(self) -> "SecretFiles":
        """What reads files of secrets: a disk that hangs is waited for once in an invocation."""
        from jobs.providers.secret_files import SecretFiles

        return SecretFiles()

    @property
    def carried(self) -> bool:
        """Whether this process carries a command out for a daemon, and asks no other one to."""
        return self.in_force is not None

    def on_disk(self) -> "Context":
        """Return the context of whoever judges the files as they are, whatever is in force."""
        return replace(self, in_force=None, strict=True)

    @property
    def settings(self) -> "Settings":
        """The configuration; raises ConfigError."""
        return self.loaded.settings

    @property
    def registry(self) -> "Registry":
        """The providers of the configuration; raises ConfigError."""
        return self.settings.registry

    @cached_property
    def any_registry(self) -> "Registry":
        """The providers of the configuration; the built-in ones where no configuration is found."""
        from jobs.errors import ConfigError
        from jobs.providers.registry import Registry
        from scheduler.config.paths import find

        try:
            find(self.config, self.environ)
        except ConfigError:
            return Registry()
        return self.registry

    def provider_name(self, spelled: str) -> "ProviderName":
        """Return the canonical name of a provider in any spelling; raises UsageError that names near ones."""
        from jobs.errors import UsageError
        from jobs.providers.registry import UnknownProvider

        try:
            return self.registry.canonical(spelled)
        except UnknownProvider as exc:
            raise UsageError(str(exc)) from exc

    @contextmanager
    def reading(self) -> "Iterator[Connection]":
        """Give a reading connection with one snapshot; raises Unavailable for another revision's database.

        A database that is not there yet is read as an empty one; nothing is created for it.
        """
        from scheduler.cli import database

        with database.reading(self.settings.database) as connection:
            yield connection

    @contextmanager
    def writing(self) -> "Iterator[Connection]":
        """Give a writing connection in one transaction; raises Unavailable where there is none."""
        from scheduler.cli import database

        with database.writing(self.settings.database) as connection:
            yield connection


pass_context = click.make_pass_decorator(Context)
