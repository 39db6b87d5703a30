"""(h): how long it takes to say what an error means."""

import json
import subprocess

from bench.figures import Figure, in_ms
from bench.peers import ours


def measure() -> list[Figure]:
    """Return the mean over every recorded answer."""
    done = subprocess.run(ours("classification"), stdout=subprocess.PIPE, text=True, check=True)
    said = json.loads(done.stdout)
    words = f"a classification, mean of {said['answers']} recorded answers"
    return [Figure("h", words, said["mean"] * 1000, " ms", f"longest {in_ms(said['longest'])}", most=0.1)]
