"""Hanging a process for real: some of its threads are stopped by the kernel (ptrace(2)), the others go on."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207  # sys/ptrace.h
ANY_CHILD = 0x40000000  # __WALL, waitpid(2): threads that are no children of ours, too
LOOK_EVERY = 0.05
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_LIBC.ptrace.restype = ctypes.c_long


@contextmanager
def all_but_the_first_thread(process: int) -> Iterator[None]:
    """Stop every thread but the main one: whatever its event loop waits for does not come, and it turns on.

    Who has stopped a thread must live, and see its end, before the process can end: so one waits here.
    """
    begun, done = threading.Event(), threading.Event()
    faults: list[OSError] = []

    def hold() -> None:
        try:
            held = _stopped(process)
        except OSError as exc:
            faults.append(exc)
        begun.set()
        while not done.wait(LOOK_EVERY) and not faults:
            held = [thread for thread in held if not _has_ended(thread)]

    holder = threading.Thread(target=hold, name="holder", daemon=True)
    holder.start()
    begun.wait()
    try:
        assert not faults, faults
        yield
    finally:
        done.set()
        holder.join()


def _stopped(process: int) -> list[int]:
    threads = [int(each.name) for each in Path(f"/proc/{process}/task").iterdir()]
    others = [thread for thread in threads if thread != process]
    return [thread for thread in others if _is_held(thread)]


def _is_held(thread: int) -> bool:
    """Stop a thread, unless it has ended meanwhile."""
    try:
        _ask(PTRACE_SEIZE, thread)
        _ask(PTRACE_INTERRUPT, thread)
        os.waitpid(thread, ANY_CHILD)
    except (ProcessLookupError, ChildProcessError):
        return False
    return True


def _has_ended(thread: int) -> bool:
    number, status = os.waitpid(thread, ANY_CHILD | os.WNOHANG)
    return number != 0 and not os.WIFSTOPPED(status)


def _ask(request: int, thread: int) -> None:
    if _LIBC.ptrace(request, thread, None, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")
