"""What `monitoring/` asks of Prometheus: its rules, its dashboard, and their expressions."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).parents[2] / "monitoring"
RULES = MONITORING / "promptd.rules.yml"
TESTS = MONITORING / "promptd.rules.test.yml"
DASHBOARD = MONITORING / "grafana" / "promptd.json"
_VARIABLES = {"$__rate_interval": "20s", "$__range": "1m"}
_SELECTOR = re.compile(r"\b(promptd_[a-z_]+|up|ALERTS)\b(?:\{[^}]*\})?")
_GROUPED = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def rules() -> list[dict[str, Any]]:
    """Return every alerting rule."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> Any:
    """Return the dashboard."""
    return json.loads(DASHBOARD.read_text())


def panels() -> dict[str, list[str]]:
    """Return the expressions of each panel, by its title, with every variable filled in."""
    return {
        panel["title"]: [_filled(target["expr"]) for target in panel["targets"]]
        for panel in dashboard()["panels"]
        if panel["type"] != "row"
    }


def expressions() -> Iterator[tuple[str, str]]:
    """Give every expression, with the name of whose it is."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for title, asked in panels().items():
        for expression in asked:
            yield title, expression
    for marks in dashboard()["annotations"]["list"]:
        if "expr" in marks:
            yield marks["name"], _filled(marks["expr"])


def selectors(expression: str) -> set[str]:
    """Return what an expression selects: names with the labels that they are to have."""
    return {found[0] for found in _SELECTOR.finditer(expression)}


def grouped_by(expression: str) -> set[str]:
    """Return the labels by which an expression groups or joins."""
    return {label.strip() for found in _GROUPED.findall(expression) for label in found.split(",")}


def _filled(expression: str) -> str:
    """Return an expression as Grafana sends it with everything chosen."""
    return re.sub(r"\$\w+", lambda name: _VARIABLES.get(name[0], ".*"), expression)
