"""The process from which `forked` forks commands: it imports, waits, and each child becomes one of them."""

import gc
import json
import os
import pkgutil
import selectors
import socket
import struct
import sys
import time
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType

import jobs
import scheduler

_WORD = struct.Struct("=i")
_LONGEST_REQUEST = 1 << 18
_DESCRIPTORS = 4  # standard input, output and error of the command, and where its process and end are told
_NOT_COMMANDS = (".__main__", ".faults")
# What commands import as they go, besides what their modules name.
_LATER = (
    *("aiohttp", "alembic.command", "cryptography.fernet", "jinja2.sandbox", "jsonschema", "rich.table"),
    *("sqlalchemy.dialects.sqlite.pysqlite", "sqlalchemy.dialects.postgresql.psycopg"),
)


def import_all() -> None:
    """Import every module of ours, and of others what these will."""
    for package in (jobs, scheduler):
        _import_below(package)
    for name in _LATER:
        import_module(name)
    gc.collect()
    gc.freeze()


def _import_below(package: ModuleType) -> None:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith(_NOT_COMMANDS):
            import_module(found.name)


def serve(control: socket.socket) -> None:
    """Fork a child for each request and tell of its end, until nobody asks any more; return in each child."""
    children: dict[int, tuple[int, int]] = {}  # by a descriptor of its process: its id, and where to tell
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in children:
                    selector.unregister(key.fd)
                    pid, status = children.pop(key.fd)
                    os.close(key.fd)
                    _tell(status, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    os.close(status)
                    continue
                request, files, _, _ = socket.recv_fds(control, _LONGEST_REQUEST, _DESCRIPTORS)
                if not request:
                    os._exit(0)
                *streams, status = files
                pid = os.fork()
                if pid == 0:
                    for descriptor, (_, other) in children.items():
                        os.close(descriptor)
                        os.close(other)
                    os.close(status)
                    become(*json.loads(request), streams)
                    return
                _tell(status, pid)
                for each in streams:
                    os.close(each)
                process = os.pidfd_open(pid)
                children[process] = (pid, status)
                selector.register(process, selectors.EVENT_READ)


def _tell(status: int, word: int) -> None:
    with suppress(BrokenPipeError):  # who asked has gone
        os.write(status, _WORD.pack(word))


def become(words: list[str], directory: str, environ: dict[str, str], streams: list[int]) -> None:
    """Give this process the words, the directory, the environment and the standard streams of a command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    sys.argv = words


if __name__ == "__main__":
    del sys.path[0]  # what is beside this file is no module of a command
    import_all()
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        os.set_inheritable(asked.fileno(), False)
        serve(asked)
    (command,) = entry_points(group="console_scripts", name="promptd")
    sys.exit(command.load()())
