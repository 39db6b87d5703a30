"""Invariant 8: the time is asked of `jobs/clock.py` alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = ROOT / "jobs" / "clock.py"
ASKING = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")} | {
    ("time", name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter")
}
SOURCES = [path for floor in ("jobs", "scheduler") for path in sorted((ROOT / floor).rglob("*.py"))]


def calls(source: str) -> set[tuple[str, str]]:
    return {
        (node.func.value.id, node.func.attr)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_else_asks_for_the_time(path: Path) -> None:
    assert path == ALLOWED or not calls(path.read_text()) & ASKING


def test_the_search_finds_what_it_looks_for() -> None:
    assert calls(ALLOWED.read_text()) & ASKING
