"""S1, S2, S9, S12: the primary's login fails, in the four ways that it can, and the run is answered."""

from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: codex/gpt-5.5
fallback_providers:
  - {{provider: custom, name: local, base_url: "{backup}", model: small, api_key: no-key-required}}
providers:
  openai-codex:
    base_url: {codex}
    credentials: [{{label: plan, oauth: {{token_url: "{token}"}}}}]
jobs:
  - {{name: digest, schedule: every 1s, prompt: "Summarise."}}
"""


def configure(workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback) -> None:
    workplace.configure(
        CONFIG.format(codex=primary.codex_url, token=primary.token_url, backup=backup.base_url)
    )


def test_s1_a_refresh_answered_401_is_taken_over_by_the_fallback(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    configure(workplace, primary, backup)
    primary.script(Endpoint.TOKEN, Reply.token_error(401, "invalid_grant"))
    backup.script(Endpoint.CHAT, Reply.text("all quiet"))
    workplace.log_in(refresh_token="spent", expires_in=-60)

    with workplace.daemon():
        run = workplace.shown(workplace.finished_runs()[0]["id"])
        credential = workplace.credential("openai-codex")

    assert run["state"] == "succeeded"
    assert run["output"] == "all quiet"
    assert run["requested"] == {"provider": "openai-codex", "model": "gpt-5.5"}
    assert run["served"]["provider"] == "custom:local"
    assert run["fallback_reason"] == "auth_dead"
    refused, answered = run["attempts"]
    assert (refused["purpose"], refused["error_class"], refused["http_status"]) == ("refresh", "auth_dead", 401)
    assert answered["outcome"] == "succeeded"
    assert (credential["status"], credential["reason"], credential["code"]) == ("dead", "auth_dead", "invalid_grant")
    assert credential["attempt_id"] == refused["id"]
    assert not primary.received(Endpoint.CODEX)
