"""How long `promptd --help` takes, as a multiple of `python -c "import click"`; less than 3 is wanted."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.figures import Figure, in_ms

ROUNDS = 15
PROMPTD = str(Path(sys.executable).with_name("promptd"))
COMMANDS = {"--help": [PROMPTD, "--help"], "import click": [sys.executable, "-c", "import click"]}


def measure() -> list[Figure]:
    """Run both in turn, so that a busy moment meets both; return the ratio of their medians."""
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(ROUNDS)]
    ours, theirs = (median(each[name] for each in rounds) for name in COMMANDS)
    words = "promptd --help ÷ python -c 'import click'"
    return [Figure("help", words, ours / theirs, "", in_ms(ours), in_ms(theirs), most=3)]


def seconds(command: list[str]) -> float:
    """Run a command once and return how long it took."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
