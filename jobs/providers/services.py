"""What the chain works with; made once by the composition root."""

from dataclasses import dataclass

from jobs.events import Events
from jobs.providers.client import Client
from jobs.providers.gates import Gates
from jobs.providers.oauth import Refresher
from jobs.providers.registry import Registry
from jobs.providers.rules import Rules
from jobs.providers.vault import Vault
from jobs.secret import Redactor
from jobs.store.store import Store


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that every call of the chain shares."""

    registry: Registry
    rules: Rules
    store: Store
    vault: Vault
    client: Client
    refresher: Refresher
    gates: Gates
    events: Events
    redactor: Redactor
