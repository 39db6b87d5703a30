"""`promptd job add`: a new job file in jobs_dir, from a file, from standard input, or from options."""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from jobs.errors import UsageError
from scheduler.cli.context import Context
from scheduler.cli.job_drafts import JobFile, check
from scheduler.cli.params import JOB, TARGET, TEXT
from scheduler.cli.tables import View, shown
from scheduler.config.places import DEFAULT_JOBS_DIR, Places
from scheduler.config.sources import LARGEST
from scheduler.config.yaml_tree import Unreadable, parse

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_UNNAMED = "new-job"
_STANDARD_INPUT = "standard input"


@click.command("add")
@click.argument("source", metavar="[FILE]", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--name", type=TEXT, help="The new job's name: a-z, 0-9 and hyphens.")
@click.option("--schedule", type=TEXT, multiple=True, metavar="LINE", help="When; several may be given.")
@click.option("--prompt", type=TEXT, help="The prompt; `-` reads standard input.")
@click.option(
    "--prompt-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The prompt's file, read at every run.",
)
@click.option("--after", type=JOB, multiple=True, metavar="JOB", help="Run after this job's successes.")
@click.option("--timezone", type=TEXT, metavar="ZONE", help="The zone of the schedule.")
@click.option(
    "--deliver",
    type=TARGET,
    multiple=True,
    metavar="TARGET[:ON]",
    help="Where results go, and of which ends (success, failure, always, changed); several may be given.",
)
@click.option("--model", type=TEXT, metavar="P/M", help="The job's own primary target.")
@click.option("--timeout", type=TEXT, metavar="D", help="What bounds a run, such as 10m.")
@click.option("--description", type=TEXT, help="For people.")
@shown
def add(context: Context, /, source: Path | None, **options: Any) -> View:
    """Write a job into jobs_dir, after checking it with everything else, and have a daemon apply it.

    FILE (`-`: standard input) holds a job or a list of jobs in YAML; without it --name and --prompt or
    --prompt-file say what the job is. Without --schedule it is run by hand, or --after another.
    """
    given = [name for name, value in options.items() if value not in (None, ())]
    if (source is None) == (not given):
        raise UsageError("give either a FILE (`-`: standard input), or --name and --prompt; see --help")
    if source is None:
        text, known_as = _text_of(options), Path("the options")
    else:
        text, known_as = _read(source), source if str(source) != "-" else Path(_STANDARD_INPUT)
    names = _names(text, known_as)
    taken = next((name for name in names if name in context.settings.jobs), None)
    if taken is not None:
        raise UsageError(f"a job is called {taken!r} already; change it with `promptd job edit {taken}`")
    file = JobFile.at(_place(context, names))
    if file.before is not None:
        raise UsageError(f"{file.path} is there already; choose another name, or edit that file")
    check(context, {file.path: text}, shown_as=known_as)
    outcome = file.change(context, text)
    data = {"file": str(file.path), "names": names, "outcome": outcome}
    return View(data, [f"wrote {file.path}; {outcome}"])


def _read(source: Path) -> str:
    try:
        content = sys.stdin.buffer.read(LARGEST + 1) if str(source) == "-" else _content(source)
        if len(content) > LARGEST:
            raise UsageError(f"{source} is larger than 4 MiB; add its jobs in parts")
        return content.decode("utf-8-sig")
    except OSError as exc:
        raise UsageError(f"cannot read {source}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"{source} is not UTF-8 text; convert it, such as with `iconv -t UTF-8`") from exc


def _content(source: Path) -> bytes:
    """Return what is in a file, or comes through a pipe that somebody writes to already; raises OSError."""
    number = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
    with open(number, "rb") as stream:
        os.set_blocking(number, True)
        return stream.read(LARGEST + 1)


def _names(text: str, known_as: Path) -> list[str]:
    """Return the names of the jobs in a text, as far as it has any: what is wrong is told by the check.

    Raises UsageError for a text without anything in it.
    """
    try:
        data, _, _ = parse(text)
    except Unreadable:
        return []
    if data in (None, [], {}):
        raise UsageError(f"{known_as} holds no job; write one, or a list of jobs, as YAML")
    jobs = data if isinstance(data, list) else [data]
    return [job["name"] for job in jobs if isinstance(job, dict) and isinstance(job.get("name"), str)]


def _place(context: Context, names: Sequence[str]) -> Path:
    """Return the file of new jobs: it has the name of the first of them."""
    loaded = context.loaded
    places = Places(loaded.settings.source.parent, context.environ)
    directory = places.absolute(loaded.file.jobs_dir or DEFAULT_JOBS_DIR)
    first = names[0] if names and _NAME.fullmatch(names[0]) else _UNNAMED
    return directory / f"{first}.yaml"


def _text_of(options: Mapping[str, Any]) -> str:
    """Return the job file that options describe; raises UsageError when they lack something."""
    prompt, prompt_file = options["prompt"], options["prompt_file"]
    if not options["name"] or (prompt is None) == (prompt_file is None):
        raise UsageError("a job needs --name, and one of --prompt and --prompt-file")
    if prompt == "-":
        prompt = _read(Path("-"))
    lines = list(options["schedule"])
    values = {
        "name": options["name"],
        "description": options["description"],
        "schedule": lines[0] if len(lines) == 1 else lines,
        "timezone": options["timezone"],
        "after": list(options["after"]),
        "model": options["model"],
        "timeout": options["timeout"],
        "deliver": [_delivered(written) for written in options["deliver"]],
        "prompt_file": str(prompt_file.absolute()) if prompt_file else None,
        "prompt": prompt,
    }
    kept = {key: value for key, value in values.items() if value not in (None, [])}
    if "schedule" not in kept:
        kept = {"name": kept.pop("name"), "schedule": None, **kept}
    return "".join(f"{key}: {_written(value)}\n" for key, value in kept.items())


def _delivered(written: str) -> str | dict[str, str]:
    """Return `TARGET` or `TARGET:ON` as a job file has it."""
    name, colon, ends = written.partition(":")
    return {"to": name, "on": ends} if colon else name


def _written(value: object) -> str:
    """Return a value as YAML: text of several lines as a block, all else as JSON, which is YAML too."""
    if isinstance(value, str) and "\n" in value.strip("\n") and _is_plain(value):
        keeps = "" if value.endswith("\n") else "-"
        return f"|{keeps}\n" + "\n".join(
            f"  {line}" if line else "" for line in value.rstrip("\n").split("\n")
        )
    return json.dumps(value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    """Say whether a text is the same when it is read back from a YAML block."""
    shape = not text[0].isspace() and not text.endswith("\n\n")
    return shape and all(c.isprintable() or c == "\n" for c in text)
