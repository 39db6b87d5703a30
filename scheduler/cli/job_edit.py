"""`promptd job edit` and `remove`: a job's file changed by hand, checked before it counts; or taken away."""

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from jobs.errors import ConfigError, UsageError
from jobs.text import readable
from scheduler.cli.context import Context, pass_context
from scheduler.cli.job_drafts import JobFile, check
from scheduler.cli.job_next import job_named
from scheduler.cli.params import JOB
from scheduler.config.job_files import WrittenJob
from scheduler.config.schema import JobRow

_EDITORS = ("sensible-editor", "editor", "nano", "vi")


@click.command("edit")
@click.argument("name", type=JOB)
@pass_context
def edit(context: Context, name: str) -> int:
    """Open the file of the job NAME in $VISUAL or $EDITOR; what has faults does not take its place."""
    file = JobFile.at(_written(context, name).document.file)
    before = (file.before or b"").decode("utf-8", "surrogateescape")
    directory = Path(tempfile.mkdtemp(prefix="promptd-", dir=context.environ.get("TMPDIR")))
    copy = directory / file.path.name
    copy.write_bytes(file.before or b"")
    try:
        after = _edited(context, file.path, copy)
        outcome = "nothing was changed" if after == before else file.change(context, after)
    except (ConfigError, UsageError):
        if copy.exists() and copy.read_bytes() != file.before:
            click.echo(f"promptd: {file.path} is as it was; your version is {copy}", err=True)
        else:
            shutil.rmtree(directory)
        raise
    shutil.rmtree(directory)
    click.echo(f"{file.path}: {outcome}")
    return 0


def _edited(context: Context, path: Path, copy: Path) -> str:
    """Return the text that an editor leaves, once it is sound; raises ConfigError when nobody mends it."""
    while True:
        _run_editor(context, copy)
        try:
            text = copy.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"what the editor has left cannot be read: {exc}") from exc
        try:
            check(context, {path: text.removeprefix("\ufeff")})
        except ConfigError as exc:
            if not sys.stdin.isatty():
                raise
            click.echo(readable(str(exc)), err=True)
            if not click.confirm("Edit it again?", default=True, err=True):
                raise
        else:
            return text


def _run_editor(context: Context, copy: Path) -> None:
    chosen = context.environ.get("VISUAL") or context.environ.get("EDITOR")
    words = shlex.split(chosen) if chosen else [next(filter(shutil.which, _EDITORS), "vi")]
    try:
        code = subprocess.run([*words, str(copy)], check=False).returncode  # noqa: S603 - the operator's own
    except OSError as exc:
        raise UsageError(f"cannot start the editor {words[0]!r}: {exc.strerror}; set EDITOR") from exc
    if code != 0:
        raise UsageError(f"the editor ended with {code}; nothing was changed")


@click.command("remove")
@click.argument("name", type=JOB)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def remove(context: Context, name: str, yes: bool) -> int:
    """Remove the file of the job NAME, and have a daemon forget the job; its history stays."""
    written = _written(context, name)
    path = written.document.file
    if written.path and (path.absolute() == context.settings.source or len(written.document.data) > 1):
        line, column = written.document.place(written.path)
        raise UsageError(
            f"{name} stands beside others at {path}:{line}:{column}; take it out there "
            f"(`promptd job edit {name}`), then `promptd reload`"
        )
    file = JobFile.at(path)
    check(context, {path: None})
    if not yes:
        _confirm(f"Remove {path}?")
    click.echo(f"removed {path}; {file.change(context, None)}")
    return 0


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked here; say --yes")
    click.confirm(question, abort=True, err=True)


def _written(context: Context, name: str) -> WrittenJob:
    """Return where a job stands; raises UsageError that names near ones."""
    job_named(context, name)
    return next(
        each for each in context.loaded.written if isinstance(each.row, JobRow) and each.row.name == name
    )
