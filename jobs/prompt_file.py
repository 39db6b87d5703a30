"""Prompts in files of their own: read whole, bounded, as UTF-8 text."""

import os
import stat
from dataclasses import replace
from pathlib import Path

from jobs.definition import Job
from jobs.errors import TemplateError
from jobs.prompt import LONGEST_PROMPT


def read_prompt_file(path: Path) -> str:
    """Return the text of a prompt file; raises TemplateError that says what is wrong with it. Blocks.

    Anything but a regular file is refused unread: a pipe would never end.
    """
    try:
        content = _content(path)
    except FileNotFoundError:
        raise TemplateError(f"{path} does not exist; write it, or name another") from None
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else "its name cannot be used"
        raise TemplateError(f"{path} cannot be read: {why}; check its path and permissions") from None
    if len(content) > LONGEST_PROMPT:
        raise TemplateError(f"{path} is larger than {LONGEST_PROMPT:,} bytes; shorten it")
    return _text(content, path)


def _content(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise TemplateError(f"{path} is not a regular file; name a text file")
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(LONGEST_PROMPT + 1)
    finally:
        os.close(descriptor)


def _text(content: bytes, path: Path) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise TemplateError(f"{path} is no UTF-8 text in line {line}; save it as UTF-8") from None
    if "\0" in text:
        raise TemplateError(f"{path} holds a NUL character; save it as plain text")
    return text


def with_texts(job: Job) -> Job:
    """Return a job with the texts of its files in place of them; raises TemplateError. Blocks."""
    prompt = read_prompt_file(job.prompt_file) if job.prompt_file else job.prompt
    system = read_prompt_file(job.system_file) if job.system_file else job.system
    return replace(job, prompt=prompt, system=system)
