"""Measures side by side, on loopback, and prints a table: `python -m bench [PART …] [--write PAGE]`."""

import argparse
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from bench import calls, claiming, classifying, failover, help_ratio, lateness, machine, starting, timeouts
from bench.contest import Fallen
from bench.figures import Figure, as_markdown, as_text
from bench.peers import Peers
from bench.profiles import Profile
from bench.provider import Provider, provider

_FALLS = (Fallen, subprocess.SubprocessError, OSError, AssertionError)
_PAGE = """# Benchmarks

Written by `{command}` on {day:%Y-%m-%d}, in {took:.0f} s.
Everything runs on loopback, in one run. CPU is that of the measured process with all its threads; the
contestants take turns, round by round, and the medians of five rounds are told. Ratios travel between
machines, milliseconds do not, and on a busy machine they are only a hint. How each thing is measured is said
at the top of its module in `bench/`.

{facts}

{table}

{missed} targets are missed.
"""
PARTS: Mapping[str, str] = {
    "a": "CPU of a whole durable run beside one call of the SDK",
    "b": "the same beside litellm.Router",
    "c": "the same beside a process for each call",
    "d": "lateness with 10,000 schedules",
    "e": "claims a second",
    "f": "start to ready, and memory",
    "g": "a scrape",
    "h": "a classification",
    "i": "failover from a 401",
    "help": "promptd --help",
    "timeouts": "what ends how late after its timeout",
}


def main() -> None:
    """Measure the parts that are asked for, all of them by default."""
    asked = _arguments()
    parts, peers = frozenset(asked.parts or PARTS), Peers.found(asked.peers)
    if peers.python is None:
        print(f"no peers in {asked.peers}: litellm is left out", file=sys.stderr)
    about = list(machine.described(peers))
    began = time.monotonic()
    with provider() as answering:
        figures = _measured(parts, answering, peers)
        took = time.monotonic() - began
        print(as_text(figures))
        print(f"{sum(each.met is False for each in figures)} targets missed; {took:.0f} s")
        profiles = _profiles(figures, answering, peers) if asked.write or asked.profile else {}
    if asked.write:
        asked.write.write_text(_page(about, figures, profiles, took, " ".join(asked.parts)), "utf-8")
    elif asked.profile:
        print(_explained(profiles))


def _arguments() -> argparse.Namespace:
    listed = "; ".join(f"{part}: {words}" for part, words in PARTS.items())
    parser = argparse.ArgumentParser("python -m bench", description=__doc__, epilog=listed)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help="all by default")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write results and profiles to a page")
    parser.add_argument("--profile", action="store_true", help="show where the time goes where one is missed")
    parser.add_argument(
        "--peers", type=Path, default=Path(".venv-bench"), help="where the peers are installed"
    )
    return parser.parse_args()


def _measured(parts: frozenset[str], answering: Provider, peers: Peers) -> list[Figure]:
    measures: list[tuple[str, Callable[[], list[Figure]]]] = [
        ("a b c", lambda: calls.measure(parts, answering, peers)),
        ("d", lateness.measure),
        ("e", claiming.measure),
        ("f", starting.measure),
        ("g", starting.measure_scrapes),
        ("h", classifying.measure),
        ("i", lambda: failover.measure(answering, peers)),
        ("help", help_ratio.measure),
        ("timeouts", timeouts.measure),
    ]
    figures = []
    for names, measure in measures:
        if parts.intersection(names.split()):
            print(f"measuring {names} …", file=sys.stderr, flush=True)
            figures += _tried(names, measure)
    return figures


def _tried(names: str, measure: Callable[[], list[Figure]]) -> list[Figure]:
    """Return the figures, or that what is measured fell over: the rest is measured all the same."""
    try:
        return measure()
    except _FALLS as exc:
        why = str(exc) if isinstance(exc, Fallen) else type(exc).__name__
        print(f"{names}: {exc}", file=sys.stderr)
        return [Figure(names, f"not measured: {why}", math.nan, most=0)]


def _profiles(figures: Iterable[Figure], answering: Provider, peers: Peers) -> dict[str, Profile]:
    """Return a profile for each part that misses a target."""
    makers: Mapping[str, Callable[[], Profile]] = {
        "a": lambda: calls.profile(answering, peers),
        "b": lambda: calls.profile(answering, peers),
        "c": lambda: calls.profile(answering, peers),
        "d": lambda: lateness.profile("together", peers),
        "e": lambda: claiming.profile(peers),
        "f": lambda: starting.profile(peers),
        "g": lambda: starting.profile_scrapes(peers),
        "i": lambda: failover.profile(answering, peers),
    }
    missed = dict.fromkeys(each.part for each in figures if each.met is False and each.part in makers)
    print("profiling " + (" ".join(missed) or "nothing"), file=sys.stderr, flush=True)
    return {part: _looked_at(makers[part]) for part in missed}


def _looked_at(make: Callable[[], Profile]) -> Profile:
    try:
        return make()
    except _FALLS as exc:
        return Profile(why_not=str(exc) if isinstance(exc, Fallen) else type(exc).__name__)


def _explained(profiles: Mapping[str, Profile]) -> str:
    return "\n".join(f"### ({part}) {PARTS[part]}\n\n{each.as_markdown()}" for part, each in profiles.items())


def _page(
    about: Iterable[tuple[str, str]],
    figures: list[Figure],
    profiles: Mapping[str, Profile],
    took: float,
    parts: str,
) -> str:
    command = f"make bench{f' BENCH={shlex.quote(parts)}' if parts else ''} WRITE=docs/benchmarks.md"
    facts = "\n".join(f"- {name}: {value}" for name, value in about)
    missed = sum(each.met is False for each in figures)
    said = _PAGE.format(
        command=command,
        day=datetime.now(UTC),
        took=took,
        facts=facts,
        table=as_markdown(figures),
        missed=missed,
    )
    if profiles:
        said += f"\n## Where the time goes where a target is missed\n\n{_explained(profiles)}"
    return said


if __name__ == "__main__":
    main()
