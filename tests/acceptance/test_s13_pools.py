"""S13 where the fallback has several keys: each bears what it was refused for, and nothing of the others."""

from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: openai-codex/gpt-5.5
fallback_providers: [z.ai/glm-5.1]
providers:
  openai-codex:
    base_url: {codex}
    credentials: [{{label: plan, oauth: {{token_url: "{token}"}}}}]
  Z_AI: {{base_url: "{zai}"}}
jobs: [{{name: digest, schedule: every 1h, prompt: "Summarise."}}]
"""
REVOKED = Reply.json(401, {"error": {"code": "1000", "message": "Authentication failed"}})
BALANCE_EMPTY = Reply.json(
    429, {"error": {"code": "1113", "message": "Insufficient balance, please recharge."}}
)
MARKS = """
SELECT m.provider, COALESCE(m.credential, m.quota_group) AS closed, m.error_class, m.code, m.attempt_id,
       a.credential AS earned_by
FROM marks m JOIN attempts a ON a.id = m.attempt_id ORDER BY m.id
"""


def test_s13_each_key_of_the_fallback_bears_its_own_refusal(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    workplace.configure(CONFIG.format(codex=primary.codex_url, token=primary.token_url, zai=backup.base_url))
    workplace.environ |= {
        "ZAI_API_KEY": "first-key",
        "Z_AI_API_KEY": "second-key",
        "GLM_API_KEY": "third-key",
    }
    workplace.log_in(refresh_token="spent", expires_in=-60)
    primary.script(Endpoint.TOKEN, Reply.token_error(401, "invalid_grant"))
    backup.script(Endpoint.CHAT, REVOKED, key="first-key")
    backup.script(Endpoint.CHAT, BALANCE_EMPTY, key="second-key")

    run = workplace.ran("job", "run", "digest")

    ended, revoked, empty, served = run["attempts"]
    assert (run["state"], run["served"]["credential"]) == ("succeeded", "GLM_API_KEY")
    assert [request.key for request in backup.received(Endpoint.CHAT)] == [
        "first-key",
        "second-key",
        "third-key",
    ]
    assert [tuple(mark.values()) for mark in workplace.rows(MARKS)] == [
        ("openai-codex", "plan", "auth_dead", "invalid_grant", ended["id"], "plan"),
        ("zai", "ZAI_API_KEY", "auth", revoked["code"], revoked["id"], "ZAI_API_KEY"),
        ("zai", "credential:Z_AI_API_KEY", "quota_billing", "1113", empty["id"], "Z_AI_API_KEY"),
    ]
    assert (served["credential"], served["outcome"]) == ("GLM_API_KEY", "succeeded")
