"""`promptd init`: a configuration to begin with, made of what is there and what somebody says."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from jobs import clock
from jobs.errors import ConfigError, UsageError
from scheduler.cli.context import Context, pass_context
from scheduler.cli.init_found import CODEX, IMPORT, Found, found, usual
from scheduler.cli.init_texts import APPRISE_VARIABLE, Answers, Delivery, config_text, job_text

# ruff: noqa: PLC0415 - what only one way of answering needs is loaded there

_FIRST = "openai"
_PUBLIC, _PRIVATE = 0o644, 0o600
_SIMPLE_PLACES = ("nowhere", "file", "apprise")


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--yes", is_flag=True, help="Ask nothing: take what is found, and the defaults.")
@click.option("--model", metavar="PROVIDER/MODEL", help="Whom to ask first; nothing is asked then.")
@click.option(
    "--timezone", metavar="ZONE", help="The time zone, such as Europe/Berlin; nothing is asked then."
)
@click.option("--deliver", type=click.Choice(_SIMPLE_PLACES), help="Where results go; nothing is asked then.")
@pass_context
def init(
    context: Context,
    directory: Path,
    yes: bool,
    model: str | None,
    timezone: str | None,
    deliver: str | None,
) -> int:
    """Write DIRECTORY/promptd.yaml and DIRECTORY/jobs.d/hello.yaml; never overwrite.

    On a terminal it asks four questions at most, unless an option answers them; nothing is written before the
    last one.
    """
    config, job = directory / "promptd.yaml", directory / "jobs.d" / "hello.yaml"
    for path in (config, job):
        if os.path.lexists(path):
            raise UsageError(f"{path} is there already; init never overwrites")
    there = found(context.environ)
    if not (yes or model or timezone or deliver) and sys.stdin.isatty() and sys.stdout.isatty():
        from scheduler.cli.init_questions import ask

        answers = ask(there)
    else:
        answers = _defaults(there, model=model, timezone=timezone, deliver=deliver)
    texts = {config: config_text(answers), job: job_text(answers)}
    _require_sound(context, config, texts)
    _write(texts, secret=answers.delivery is not None and answers.delivery.is_secret)
    _tell(config, job, answers, there)
    return 0


def _defaults(there: list[Found], *, model: str | None, timezone: str | None, deliver: str | None) -> Answers:
    """Return what is taken where nobody is asked."""
    primary = _named(model, there) if model else there[0] if there else usual(_FIRST)
    places = {"file": Delivery.file(), "apprise": Delivery.apprise(APPRISE_VARIABLE)}
    return Answers(
        primary,
        [each for each in there if each.provider != primary.provider],
        timezone,
        places.get(deliver or ""),
    )


def _named(model: str, there: list[Found]) -> Found:
    from jobs.providers.registry import Registry, UnknownProvider

    written, _, name = model.partition("/")
    if not name:
        raise UsageError(f"{model!r} names no model; write PROVIDER/MODEL")
    try:
        provider = Registry().canonical(written)
    except UnknownProvider as exc:
        raise UsageError(str(exc)) from exc
    known = next((each for each in there if each.provider == provider), None)
    return Found(provider, name, (known or usual(provider)).why)


def _require_sound(context: Context, config: Path, texts: Mapping[Path, str]) -> None:
    """Raise UsageError where `promptd check` would not take what is about to be written."""
    from scheduler.config.loader import load_with_origins

    drafts = {Path(os.path.abspath(path)): text for path, text in texts.items()}
    path = Path(os.path.abspath(config))
    try:
        load_with_origins(path, environ=context.environ, now=clock.utcnow(), drafts=drafts, strict=True)
    except ConfigError as exc:
        raise UsageError(f"nothing was written, since it would not be sound: {exc}") from exc


def _write(texts: Mapping[Path, str], *, secret: bool) -> None:
    """Write new files, all of them or none."""
    with _undone_on_error() as made:
        for path, text in texts.items():
            try:
                _make_directory(path.parent, made)
                opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE if secret else _PUBLIC)
                made.append(path)
                with os.fdopen(opened, "w", encoding="utf-8") as file:
                    file.write(text)
            except OSError as exc:
                raise UsageError(f"cannot write {path}: {exc.strerror}") from exc


@contextmanager
def _undone_on_error() -> Iterator[list[Path]]:
    """Give a list of what is made; after any error, Ctrl-C too, none of it is left."""
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in reversed(made):
            if path.is_dir():
                with suppress(OSError):  # somebody else may have put something there by now
                    path.rmdir()
            else:
                path.unlink(missing_ok=True)
        raise


def _make_directory(path: Path, made: list[Path]) -> None:
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir()
        made.append(each)


def _tell(config: Path, job: Path, answers: Answers, there: list[Found]) -> None:
    click.echo(f"wrote {config} and {job}")
    if there:
        click.echo(f"found: {', '.join(each.target for each in there)}")
    else:
        click.echo(
            "found no key variable that is set and no local Ollama: set OPENAI_API_KEY, or edit `model`"
        )
    if answers.delivery is not None and answers.delivery.todo:
        click.echo(f"before it delivers: {answers.delivery.todo}")
    if answers.primary.provider == CODEX:
        click.echo(f"before it asks: promptd --config {config} {IMPORT.removeprefix('promptd ')}")
    click.echo(f"next: promptd --config {config} check, then promptd --config {config} job run hello")
