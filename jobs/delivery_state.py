"""How a delivery stands, and when a job wants one."""

from dataclasses import dataclass
from enum import StrEnum


class DeliveryState(StrEnum):
    """Where a delivery stands. `failed` is for good: the dead letter, until somebody asks for it again."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DeliverOn(StrEnum):
    """Which ends of its runs a job wants delivered.

    `changed`: a success whose answer is another one than that of the success before it.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    ALWAYS = "always"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Deliver:
    """One place where a job's results go, by the name of its delivery target."""

    to: str
    on: DeliverOn = DeliverOn.SUCCESS
