"""Whether a process still works is asked of the kernel: its id, its start, and that it has not ended."""

import os
import subprocess
import sys

from jobs.store.instances import process_start


def test_a_process_begins_once() -> None:
    assert process_start(os.getpid()) == process_start(os.getpid()) != ""


def test_a_process_that_has_ended_works_no_more_though_nobody_has_waited_for_it() -> None:
    """A killed daemon stays a zombie under a parent that does not care; its work is free nevertheless."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = process_start(child.pid)
    child.kill()

    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert began != ""
    assert process_start(child.pid) == ""
    child.communicate()
