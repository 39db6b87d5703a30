"""What the services of the tests are configured with."""

from jobs.providers.loopback_thread import ThreadedLoopback
from support.boot.service import Service

PULSE = '{name: pulse, schedule: every 1s, prompt: "Say something."}'
BY_HAND = '{name: by-hand, schedule: null, prompt: "Say it now."}'
CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
limits: {{drain_timeout: 12s}}
jobs: [{jobs}]
"""
WITH_A_KEY = """
model: house/small
providers:
  house: {{base_url: "{url}", credentials: [{{label: main, key: "systemd:house"}}]}}
jobs: [{jobs}]
"""


def configure(
    service: Service, provider: ThreadedLoopback, *jobs: str, text: str = CONFIG, **values: str
) -> None:
    """Let a service ask this provider, and do these jobs; `values` are what else the text has places for."""
    service.configure(text.format(url=provider.base_url, jobs=", ".join(jobs or (PULSE, BY_HAND)), **values))
