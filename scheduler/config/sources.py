"""One file of the configuration as plain data that still knows its lines."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from jobs.errors import OUT_OF_REACH, ConfigError, Fault, Unavailable
from scheduler.config.yaml_tree import KeyPath, Mistake, Unreadable, parse

LARGEST = 4 * 1024 * 1024
Drafts = Mapping[Path, str | None]
NO_DRAFTS: Drafts = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One file: its plain data, and where everything in it stands."""

    file: Path
    data: Any
    root: Node | None = None

    def holds(self, path: KeyPath) -> bool:
        """Say whether the path leads to something in this file."""
        return self._steps(path)[1] == len(path)

    def held(self, path: KeyPath) -> KeyPath:
        """Return as much of a path as is in this file; one value may stand there in place of a list."""
        kept: KeyPath = ()
        for part in path:
            if self.holds((*kept, part)):
                kept = (*kept, part)
            elif not isinstance(part, int):
                break
        return kept

    def place(self, path: KeyPath, *, key: bool = False) -> tuple[int, int]:
        """Return line and column, from 1, of the value at the path, or of its key.

        A list or mapping is told by its key. What is not in the file is told by what would hold it.
        """
        trail, _ = self._steps(path)
        if not trail:
            return (0, 0)
        key_node, value_node = trail[-1]
        told_by_value = not key and isinstance(value_node, ScalarNode)
        mark = (value_node if told_by_value or key_node is None else key_node).start_mark
        return (mark.line + 1, mark.column + 1)

    def _steps(self, path: KeyPath) -> tuple[list[tuple[Node | None, Node]], int]:
        trail: list[tuple[Node | None, Node]] = [(None, self.root)] if self.root else []
        for count, part in enumerate(path):
            step = _child(trail[-1][1], part) if trail else None
            if step is None:
                return trail, count
            trail.append(step)
        return trail, len(path)


def _child(node: Node, part: str | int) -> tuple[Node | None, Node] | None:
    match node:
        case MappingNode(value=pairs):
            return next(((k, v) for k, v in pairs if isinstance(k, ScalarNode) and k.value == part), None)
        case SequenceNode(value=items) if isinstance(part, int) and part < len(items):
            return (None, items[part])
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a configuration, and their `texts` by absolute path, as far as they were read.

    `drafts` are files as they would be: with this text, or gone (None). They are `alone` where nothing else
    is looked at. `strict`: a prompt file that a run could not use is a fault, not only a warning.
    """

    drafts: Drafts = field(default_factory=lambda: NO_DRAFTS)
    alone: bool = False
    strict: bool = False
    texts: dict[Path, str] = field(default_factory=dict)

    def read(self, file: Path) -> tuple[Document, list[Mistake]]:
        """Return one YAML file and what is wrong with it; raises ConfigError when it is no YAML at all.

        Raises Unavailable where only its disk is to blame.
        """
        try:
            text = self._text(file)
            data, root, mistakes = parse(text)
        except Unreadable as exc:
            wrong = exc.mistake
            raise ConfigError([Fault(file, wrong.line, wrong.column, "", wrong.wrong, wrong.mend)]) from None
        self.texts[file.absolute()] = text
        return Document(file, data, root), mistakes

    def of(self, directory: Path) -> list[Path]:
        """Return the files of a directory in order of names; raises OSError."""
        new = {file for file, text in self.drafts.items() if file.parent == directory and text is not None}
        looked_at = not self.alone and (directory.exists() or not new)
        files = (set(directory.iterdir()) if looked_at else set()) | new
        gone = {file for file, text in self.drafts.items() if text is None}
        return sorted(file for file in files - gone if not file.name.startswith("."))

    def _text(self, file: Path) -> str:
        draft = self.drafts.get(file)
        if draft is not None:
            return draft
        if self.alone:
            raise Unreadable(Mistake(0, 0, "does not exist", "reload the daemon"))
        return _text(file)


def read(file: Path) -> tuple[Document, list[Mistake]]:
    """Return one YAML file, as `Files.read` does."""
    return Files().read(file)


def _text(file: Path) -> str:
    content = _content(file)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        before = content[: exc.start]
        line, column = before.count(b"\n") + 1, exc.start - before.rfind(b"\n")
        raise Unreadable(Mistake(line, column, "is not UTF-8 text", "save it as UTF-8")) from None


def _content(file: Path) -> bytes:
    """Return the bytes of a regular file of at most 4 MiB; its size is looked at before it is read.

    Raises Unavailable where only its disk is to blame.
    """
    try:
        facts = file.stat()
        if not stat.S_ISREG(facts.st_mode):
            what = "is a directory" if stat.S_ISDIR(facts.st_mode) else "is not a regular file"
            raise Unreadable(Mistake(0, 0, what, "name a YAML file"))
        if facts.st_size > LARGEST:
            raise _too_large()
        with file.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise Unreadable(
            Mistake(0, 0, "does not exist", "write it with `promptd init`, or name another")
        ) from None
    except (OSError, ValueError) as exc:
        if isinstance(exc, OSError) and exc.errno in OUT_OF_REACH:
            raise Unavailable(f"{file} cannot be read: {exc.strerror}; look after its disk") from exc
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else "its name cannot be used"
        raise Unreadable(Mistake(0, 0, f"cannot be read: {why}", "check its path and permissions")) from None
    if len(content) > LARGEST:
        raise _too_large()
    return content


def _too_large() -> Unreadable:
    return Unreadable(Mistake(0, 0, "is larger than 4 MiB", "split the jobs over files in jobs_dir"))
