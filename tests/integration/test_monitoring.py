"""Alert rules and dashboard as files: promtool's own tests, a test for each alert, commands that exist."""

import re
from typing import Any

import click
import pytest
import yaml
from support import debian
from support.monitoring import MONITORING, TESTS, dashboard, rules
from support.prometheus import promtool

from scheduler.cli import cli

SEVERITIES = ("critical", "warning", "info")


@pytest.fixture(scope="module", autouse=True)
def there() -> None:
    try:
        debian.PROMETHEUS.root()
    except debian.NotThere as exc:
        pytest.skip(str(exc))


def commands(text: str) -> list[str]:
    """Return what a text tells people to run of promptd, without options and names."""
    return re.findall(r"(?:: |; |then |with )promptd ((?:[a-z]+ ?)+)", text)


def test_prometheus_takes_the_sample_configuration_and_the_rules() -> None:
    said = promtool("check", "config", "prometheus.yml", cwd=MONITORING)

    assert f"SUCCESS: {len(rules())} rules found" in said
    assert len(rules()) >= 25


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    said = promtool("test", "rules", TESTS.name, cwd=MONITORING)

    assert "SUCCESS" in said
    assert "FAILED" not in said


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    checks = [
        check for test in yaml.safe_load(TESTS.read_text())["tests"] for check in test["alert_rule_test"]
    ]
    firing = {check["alertname"] for check in checks if check["exp_alerts"]}
    silent = {check["alertname"] for check in checks if not check["exp_alerts"]}
    alerts = {rule["alert"] for rule in rules()}

    assert firing == alerts
    assert silent == alerts


def test_every_alert_with_a_for_is_looked_at_before_and_after_it() -> None:
    """Silent at a moment within `for` of the one at which it fires, in the same test."""
    minutes = {"s": 1 / 60, "m": 1, "h": 60, "d": 1440}
    tests = yaml.safe_load(TESTS.read_text())["tests"]

    def length(text: str) -> float:
        return float(text[:-1]) * minutes[text[-1]]

    for rule in rules():
        if "for" not in rule:
            continue
        gaps = []
        for test in tests:
            at = {
                bool(c["exp_alerts"]): length(c["eval_time"])
                for c in test["alert_rule_test"]
                if c["alertname"] == rule["alert"]
            }
            if len(at) == 2:
                gaps.append(at[True] - at[False])
        assert any(0 < gap <= length(rule["for"]) for gap in gaps), rule["alert"]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_run(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description"}
    description = rule["annotations"]["description"]
    assert re.search(r"(promptd|journalctl|systemctl|promtool) ", description), description
    for words in commands(description):
        found: click.Command = cli
        for word in words.split():
            if not isinstance(found, click.Group):
                break
            context = click.Context(found)
            found = found.get_command(context, word) or pytest.fail(f"no command promptd {words}")


def test_the_dashboard_has_what_grafana_needs_of_it() -> None:
    board = dashboard()
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    variables = {each["name"]: each for each in board["templating"]["list"]}

    assert board["schemaVersion"] >= 39
    assert variables["datasource"]["type"] == "datasource"
    assert {"instance", "job", "provider"} < set(variables)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None
        assert panel["targets"]
        assert [each["refId"] for each in panel["targets"]] == list("ABCDEFG"[: len(panel["targets"])])


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        squares = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not taken & squares, panel["title"]
        taken |= squares
