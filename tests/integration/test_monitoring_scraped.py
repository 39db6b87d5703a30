"""A real Prometheus scrapes a real daemon: no warnings, and every figure that anybody asks for is there."""

import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics import parser as openmetrics_parser
from support import debian
from support.monitoring import (
    MONITORING,
    RULES,
    dashboard,
    expressions,
    grouped_by,
    panels,
    selectors,
)
from support.prometheus import Prometheus, promtool, running
from support.workplace import DaemonProcess, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: openai/gpt
fallback_providers:
  - {{provider: custom, name: spare, base_url: "{spare}", model: small, api_key: spare-key}}
providers:
  openai: {{base_url: "{openai}", credentials: [{{label: main, key: env:OPENAI_KEY}}]}}
delivery: {{inbox: {{file: "out/{{job}}.md"}}}}
limits: {{drain_timeout: 1s}}
jobs:
  - {{name: digest, schedule: every 1s, prompt: hello}}
  - {{name: broken, schedule: every 1s, prompt: "{{{{ vars.nothing }}}}"}}
  - {{name: mail, schedule: null, prompt: p, model: openai-codex/gpt, fallback: none}}
"""
EVERY = "3s"  # also how long a scrape may take
PATIENCE = 120.0


@dataclass(frozen=True)
class Watched:
    """A daemon that has run something, and the server that scrapes it."""

    workplace: Workplace
    daemon: DaemonProcess
    server: Prometheus


def configuration(daemon: DaemonProcess) -> dict[str, Any]:
    """Return the sample configuration, for this daemon and in a hurry."""
    config: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY}
    config["rule_files"] = [str(RULES)]
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"] = [{"targets": [f"127.0.0.1:{daemon.port}"]}]
    return config


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    try:
        debian.PROMETHEUS.root()
    except debian.NotThere as exc:
        pytest.skip(str(exc))
    directory = tmp_path_factory.mktemp("watched")
    workplace = Workplace(directory, {"OPENAI_KEY": "key-of-openai"})
    with ThreadedLoopback() as openai, ThreadedLoopback() as spare:
        spent = Reply.error(429, code="insufficient_quota", message="You exceeded your current quota.")
        openai.script(Endpoint.RESPONSES, spent)
        workplace.configure(CONFIG.format(openai=openai.base_url, spare=spare.base_url))
        workplace.log_in(refresh_token="", expires_in=7200)
        with (
            workplace.daemon() as daemon,
            running(directory, configuration(daemon)) as server,
        ):
            seen = 'increase(promptd_runs_total{exported_job="digest", state="succeeded"}[20s]) > 0'
            eventually(
                lambda: server.query(f"{seen} and on () promptd_job_consecutive_failures >= 3") or None,
                within=PATIENCE,
            )
            yield Watched(workplace, daemon, server)


def comes_true(holds: Callable[[], bool]) -> None:
    """Wait until that is so: a scrape may come too late on a slow machine, and all is gone until the next."""
    eventually(lambda: holds() or None, within=PATIENCE)


def test_prometheus_scrapes_the_daemon_without_a_word_of_warning(watched: Watched) -> None:
    def is_up() -> bool:
        (target,) = watched.server.ask("targets")["activeTargets"]
        return (target["health"], target["lastError"]) == ("up", "")

    comes_true(is_up)
    comes_true(lambda: [each["value"][1] for each in watched.server.query('up{job="promptd"}')] == ["1"])
    log = watched.server.log.read_text()
    assert "Server is ready" in log
    assert not re.search(r"level=(?!info\b|debug\b)", log), log


def test_promtool_has_nothing_against_the_figures(watched: Watched) -> None:
    status, text = watched.daemon.get("/metrics")

    assert status == 200
    assert promtool("check", "metrics", stdin=text) == ""


def test_whoever_asks_for_openmetrics_gets_it(watched: Watched) -> None:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{watched.daemon.port}/metrics",
        headers={"Accept": "application/openmetrics-text; version=1.0.0"},
    )
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        kind, text = answer.headers["Content-Type"], answer.read().decode()

    assert kind.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert text.endswith("# EOF\n")
    families = {family.name for family in openmetrics_parser.text_string_to_metric_families(text)}
    assert {"promptd_runs", "promptd_job_next_run_timestamp_seconds", "promptd_process_open_fds"} <= families


def test_every_rule_is_evaluated_and_the_right_ones_fire(watched: Watched) -> None:
    wanted = {"PromptdProviderClosed", "PromptdLoginEndsSoon", "PromptdJobNeverSucceeded"}
    firing = eventually(lambda: watched.server.query('ALERTS{alertstate="firing"}') or None, within=PATIENCE)
    comes_true(lambda: wanted <= pending(watched.server))
    groups = watched.server.ask("rules")["groups"]

    assert {(rule["health"], rule.get("lastError", "")) for group in groups for rule in group["rules"]} == {
        ("ok", "")
    }
    assert [(each["metric"]["alertname"], each["metric"]["exported_job"]) for each in firing] == [
        ("PromptdJobFailing", "broken")
    ]
    unwanted = {"PromptdDown", "PromptdNotPlanning", "PromptdStateUnread", "PromptdReloadFailed"}
    comes_true(lambda: not unwanted & pending(watched.server))


def pending(server: Prometheus) -> set[str]:
    """Return the alerts that wait for their `for` to be over."""
    return {each["metric"]["alertname"] for each in server.query('ALERTS{alertstate="pending"}')}


def test_every_figure_that_is_asked_for_is_there_with_these_labels(watched: Watched) -> None:
    """Each selector on its own finds something: its name, its labels, and the values it wants."""
    asked = {(whose, each) for whose, expression in expressions() for each in selectors(expression)}

    assert len(asked) > 60
    for whose, each in sorted(asked):
        found = eventually(lambda each=each: watched.server.query(each) or None, within=PATIENCE)
        assert found, (whose, each)


def test_labels_that_are_grouped_by_are_labels_of_what_is_grouped(watched: Watched) -> None:
    for whose, expression in expressions():
        series = [each["metric"] for found in selectors(expression) for each in watched.server.query(found)]

        assert grouped_by(expression) <= {label for each in series for label in each}, whose


def test_every_panel_shows_something_but_those_of_what_has_not_happened(watched: Watched) -> None:
    quiet = {
        title
        for title, asked in panels().items()
        if not any(watched.server.query(expression) for expression in asked)
    }

    assert quiet == {"Refreshes of logins"}


def test_every_variable_of_the_dashboard_has_values(watched: Watched) -> None:
    for variable in dashboard()["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", str(variable.get("definition", "")))
        if asked is None:
            assert variable["name"] == "datasource"
            continue
        selector = asked[1].replace("$instance", ".*")
        assert watched.server.ask(f"label/{asked[2]}/values", **{"match[]": selector}), variable["name"]
