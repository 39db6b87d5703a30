"""No key that is configured goes to a model because a job's command has printed it, whoever it belongs to."""

from pathlib import Path

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
secret_key: env:OWN
model: house/m
fallback_providers:
  - {{provider: custom, name: b, base_url: "{url}", model: m, api_key: planted-literal-of-a-fallback}}
providers:
  house: {{base_url: "{url}", credentials: [{{label: a, key: "env:HOUSE"}}, {{label: b, key: "env:TWO"}}]}}
  nobody-asks:
    base_url: "{url}"
    headers: {{X-Tenant: planted-tenant-Qx7Zr2Lm9Ke4, X-Upstream-Key: Bearer planted-behind-its-scheme}}
    credentials: [{{label: one, key: "env:UNUSED"}}, {{label: two, key: "file:{directory}/key"}}]
  not-there: {{base_url: "{url}", credentials: [{{label: one, key: "env:NOT_SET"}}]}}
delivery:
  hook: {{webhook: "env:HOOK", headers: {{X-Any: "file:{directory}/header"}}, secret: "env:HOOK_SECRET"}}
  mail: {{apprise: "mailtos://me:planted-word-of-mail@example.org"}}
jobs:
  - name: digest
    schedule: every 1s
    prompt: "{{{{ gathered }}}}"
    gather: {{shell: true, command: 'cat all; printf %s "$HOOK$HOOK_SECRET$BEAT$OWN$HOUSE"'}}
  - name: other
    schedule: every 1d
    heartbeat: env:BEAT
    prompt: hello
    model: {{provider: custom, name: c, base_url: "{url}", model: m, api_key: planted-literal-elsewhere}}
"""
KEYS = {
    "OWN": "planted-key-of-promptd-itself-0a1b2c3d",
    "HOUSE": "planted-first-key",
    "TWO": "planted-second-key",
    "UNUSED": "planted-key-of-nobody",
    "GROQ_API_KEY": "planted-builtin-key",
    "HOOK": "https://example.org/in/planted-Zx81Qq0aBc93",
    "HOOK_SECRET": "planted-key-of-signatures",
    "BEAT": "https://hc.example/planted-b9f1d0aa77",
}
PLANTED = [
    *KEYS.values(),
    "planted-literal-of-a-fallback",
    "planted-literal-elsewhere",
    "planted-tenant-Qx7Zr2Lm9Ke4",
    "planted-behind-its-scheme",
    "planted-in-a-file",
    "planted-in-a-header",
    "planted-word-of-mail",
    "planted-Zx81Qq0aBc93",
    "planted-b9f1d0aa77",
    "planted-access-token",
    "planted-refresh-token",
]

# Of an address only the part that looks random is a secret: everybody may know the rest.
SHOWN = {
    "https://example.org/in/planted-Zx81Qq0aBc93": "https://example.org/in/[secret]",
    "https://hc.example/planted-b9f1d0aa77": "https://hc.example/[secret]",
}
MASKED = "".join(f"it is {SHOWN.get(each, '[secret]')}.\n" for each in PLANTED)


@pytest.fixture
def planted(workplace: Workplace, primary: ThreadedLoopback) -> Workplace:
    """A workplace whose job prints every secret there is; the model says again what it was asked."""
    workplace.environ |= KEYS
    (workplace.directory / "key").write_text("planted-in-a-file\n")
    (workplace.directory / "header").write_text("planted-in-a-header\n")
    (workplace.directory / "all").write_text("".join(f"it is {each}.\n" for each in PLANTED))
    workplace.configure(CONFIG.format(url=primary.base_url, directory=workplace.directory))
    workplace.log_in(access_token="planted-access-token", refresh_token="planted-refresh-token")
    (workplace.directory / "auth.json").unlink()
    primary.script(Endpoint.CHAT, Reply.text(lambda received: received.prompt))
    return workplace


def state(workplace: Workplace) -> bytes:
    """Return every byte that was written below the state directory."""
    files = (path for path in Path(workplace.database.parent).rglob("*") if path.is_file())
    return b"".join(path.read_bytes() for path in files)


def test_a_single_run_sends_and_stores_none_of_them(planted: Workplace, primary: ThreadedLoopback) -> None:
    said = planted.run("job", "run", "digest", "--json")

    assert said.code == 0
    assert primary.requests[0].prompt == MASKED
    everything = f"{said.out}{said.err}{state(planted).decode('latin-1')}"
    assert [each for each in PLANTED if each in everything] == []


def test_a_daemon_sends_and_stores_none_of_them(planted: Workplace, primary: ThreadedLoopback) -> None:
    with planted.daemon() as daemon:
        planted.wait_finished()
        logged = daemon.log.read_text()

    assert primary.requests[0].prompt == MASKED
    everything = f"{logged}{state(planted).decode('latin-1')}"
    assert [each for each in PLANTED if each in everything] == []
