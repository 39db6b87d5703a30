"""No secret of ours gets out, whatever fails and whoever quotes it back."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import crowd
from support.planted import Planted, echo, plainly, plant
from support.workplace import Result, Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

ANSWERS = {
    "quotes": Reply.text(lambda received: f"Your key is {received.key}, and it is good."),
    "refuses": echo(400),
    "cuts-the-middle": echo(400, cut="***"),
    "cuts-the-end": echo(400, lead="x" * 165),
    "breaks": echo(500).after(1),
    "shows-a-page": plainly(503).after(1),
    "hangs-up": echo(500).cut(40).after(1),
    "shuts-out": echo(401).after(4),
}
COMMANDS = (
    "check", "check --json", "config show", "config show --json", "status --json", "provider list",
    "job list --json", "job show literal-quotes", "auth list", "auth list --json", "auth why openai",
    "auth why codex --json", "run list --limit 500", "run list --limit 500 --json", "run show 1",
    "run show 3", "-v job run openai-refuses", "-v job run by-systemd-breaks --json",
    "-v ask hello --provider codex --model quotes", "-v job show no-such-job",
)  # fmt: skip
MISTAKES = """
database: sqlite:///promptd.db
secret_key: {secret}
model: {{provider: openai, model: m}}
fallback_providers:
  - {{provider: custom, name: a, base_url: "http://user:{secret}@127.0.0.1:9/v1", model: m, api_key: x}}
  - {{provider: custom, name: b, base_url: "http://127.0.0.1:9/v1", model: m, api_key_env: {secret}}}
  - {{provider: custom, name: c, base_url: "http://127.0.0.1:9/v1", model: m, api_key: "${{{secret}}}"}}
providers:
  openai: {{credentials: [{{label: main, key: {secret}}}]}}
  zai: {{credentials: [{{label: main, key: "plain:{secret}"}}]}}
jobs: []
"""


def everything(result: Result) -> str:
    return f"{result.code}\n{result.out}\n{result.err}"


def outputs(workplace: Workplace) -> dict[str, str]:
    """What every reading command prints, and commands that fail."""
    with ThreadPoolExecutor(3) as some:
        return dict(
            zip(COMMANDS, some.map(lambda c: everything(workplace.run(*c.split())), COMMANDS), strict=True)
        )


def scripted(provider: ThreadedLoopback, planted: Planted) -> None:
    """A first refresh is granted for 4 s, and later ones are refused with the token quoted."""
    tokens = ("access_token", "refresh_token", "id_token")
    granted = {name: planted.new(f"refreshed-{name}") for name in tokens}
    provider.script(Endpoint.TOKEN, Reply.tokens(**granted, expires_in=4), echo(400))
    for model, reply in ANSWERS.items():
        provider.script(Endpoint.CHAT, reply, model=model)
        provider.script(Endpoint.CODEX, reply if model != "shuts-out" else echo(403), model=model)


def test_keys_planted_everywhere_and_quoted_back_by_failing_providers_are_nowhere_to_be_found(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    planted = plant(workplace, primary.origin, models=ANSWERS)
    scripted(primary, planted)

    with workplace.daemon() as daemon:
        runs = crowd.first_runs(workplace, 7 * len(ANSWERS))
        served = {path: daemon.get(path)[1] for path in ("/metrics", "/healthz", "/readyz")}
        workplace.run("auth", "reset", "codex")
        printed = outputs(workplace)
        started_as = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes()
        while_running = planted.bytes_written()
        assert daemon.stop() == 0

    quoted = {request.key for request in primary.requests}
    assert planted.secrets >= quoted
    assert len(quoted) == 9, "every key was sent, an access token and two refresh tokens among them"
    assert [run["state"] for run in runs if run["job"].endswith("-quotes")] == ["succeeded"] * 7
    assert {run["output"] for run in runs if run["output"]} == {"Your key is [secret], and it is good."}
    assert planted.leaks(served | printed | {"command line": started_as}) == []
    assert planted.leaks(while_running) == []
    assert planted.leaks(planted.bytes_written()) == []


@pytest.mark.parametrize("command", ["check", "check --json", "start", "config show", "-v auth list"])
def test_a_key_pasted_where_a_reference_belongs_is_refused_without_being_repeated(
    workplace: Workplace, command: str
) -> None:
    planted = Planted(workplace)
    workplace.configure(MISTAKES.format(secret=planted.new("pasted")))

    result = workplace.run(*command.split())

    assert result.code == 78
    assert "credentials[0].key" in result.out + result.err
    assert planted.leaks({command: everything(result)}) == []


def test_a_traceback_shows_no_secret(workplace: Workplace) -> None:
    """The database cannot be opened, and its address holds a password."""
    planted = Planted(workplace)
    password = planted.new("password")
    workplace.configure(
        f"database: postgresql+psycopg://me:{password}@127.0.0.1:9/db\n"
        "model: {provider: custom, base_url: 'http://127.0.0.1:9/v1', model: m, api_key: none}\n"
    )

    printed = {
        command: everything(workplace.run(*command.split()))
        for command in ("-v start", "-v run list", "-v config show", "-v check")
    }

    assert planted.leaks(printed) == []
