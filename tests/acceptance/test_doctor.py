"""`promptd doctor` beside a daemon: what is the daemon's own, the daemon looks at."""

from typing import Any

from support.workplace import Workplace

CONFIG = """
model: zai/glm-5.1
jobs: [{name: digest, schedule: "@daily", prompt: hello}]
"""
KEY = "key-that-nobody-may-see"
PROXY = "http://somebody:password-of-the-proxy@proxy.example:3128"


def findings(workplace: Workplace, *, code: int) -> dict[str, Any]:
    """Return the first finding of each name, and see that no secret is among them."""
    result = workplace.run("doctor", "--json")
    assert result.code == code, result
    assert KEY not in result.out
    assert "password-of-the-proxy" not in result.out
    report = result.json()
    first = {each["name"]: each for each in reversed(report["findings"])}
    return {**first, "pid": report["daemon"]}


def test_the_daemons_environment_and_secrets_are_looked_at_by_the_daemon(workplace: Workplace) -> None:
    """Also while the file on the disk is broken; the shell has neither the key nor the proxy."""
    workplace.configure(CONFIG)
    workplace.environ = {"ZAI_API_KEY": KEY, "HTTPS_PROXY": PROXY}
    with workplace.daemon() as daemon:
        workplace.environ = {}
        sound = findings(workplace, code=0)
        workplace.config.write_text(workplace.config.read_text().replace("@daily", "@nonsense"))
        broken = findings(workplace, code=1)

    assert sound["pid"] == daemon.process.pid
    assert (sound["daemon"]["level"], sound["clock"]["seen_by"]) == ("ok", "shell")
    for found in (sound, broken):
        for name in ("secrets", "proxies", "database", "integrity", "control socket", "descriptors"):
            assert (found[name]["seen_by"], found[name]["level"]) == ("daemon", "ok"), found[name]
        assert "proxy.example:3128" in found["proxies"]["seen"]
    assert (sound["configuration"]["level"], broken["configuration"]["level"]) == ("ok", "fault")
