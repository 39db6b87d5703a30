"""The provider of the crash harness: its own list of what was asked and said, and a hand that kills."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

from jobs.providers.loopback_replies import Endpoint, Received, Reply, Wire
from jobs.providers.loopback_thread import ThreadedLoopback
from support.crash.fuse import Fuse

PACES = MappingProxyType(
    {
        **{"quick": 0.0, "slow": 0.4, "slower": 1.3, "faulty": 0.0, "doomed": 0.0, "shaky": 0.0},
        **{"still": 0.0, "wavering": 0.0},
    }
)
"""The models, and how many seconds each takes to answer."""
PAUSE = 0.02
TIDE = 4
"""For how many seconds the wavering model refuses everything, before it answers for as long."""

HEARD, HALF, WHOLE = "a request is heard", "half a response", "a whole response"


@dataclass(frozen=True, slots=True)
class Said:
    """One request, and what was to be said to it: `text` None is an error."""

    number: int
    job: str
    instant: str
    provider: str
    text: str | None

    @property
    def key(self) -> tuple[str, str, str]:
        """Which job, instant and provider it was for."""
        return self.job, self.instant, self.provider

    @property
    def request_id(self) -> str:
        """The provider's name for it."""
        return f"req-{self.number}"


def _nobody(_moment: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Watched(Reply):
    """A reply in three pieces, that tells when half of it, and when all of it, has been sent."""

    tell: Callable[[str], None] = _nobody

    def portions(self, head: bytes, body: bytes) -> Iterator[bytes]:
        """Yield head and half of the body, one byte more, and the rest."""
        middle = len(body) // 2
        yield head + body[:middle]
        yield body[middle : middle + 1]
        self.tell(HALF)
        yield body[middle + 1 :]
        self.tell(WHOLE)


class Provider:
    """A loopback server that answers by model, in any provider's name, and remembers what it has said.

    What it says depends on the request alone: the answer quotes the request's number and its prompt. But the
    model `still` says the same for ten seconds.
    """

    def __init__(self) -> None:
        self.said: list[Said] = []
        self._server = ThreadedLoopback()
        self._heard: Counter[str] = Counter()
        self.fuse = Fuse()

    def __enter__(self) -> Self:
        self._server.start()
        for model, pace in PACES.items():
            reply = Watched(self._wire, delay=pace, chunk=None, pause=PAUSE, tell=self.fuse.reach)
            self._server.script(Endpoint.CHAT, reply, model=model)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def origin(self) -> str:
        """Its address; a provider's name comes next in the path."""
        return self._server.origin

    @property
    def received(self) -> int:
        """How many requests it has ever received."""
        return len(self._server.requests)

    def _wire(self, received: Received) -> Wire:
        """Decide an answer as its request arrives."""
        job, _, instant = received.prompt.partition(" ")
        fails = self._fails(received)
        text = None if fails else _answer_to(received)
        said = Said(received.number, job, instant, received.path.split("/")[1], text)
        self.said.append(said)
        reply = (
            Reply.error(fails, type="invalid_request_error") if fails else Reply.text(lambda _: text or "")
        )
        wire = reply.wire(received)
        self.fuse.reach(HEARD)
        return replace(wire, headers=(*wire.headers, ("x-request-id", said.request_id)))

    def _fails(self, received: Received) -> int | None:
        """Return the status of an error; which prompts are refused, and how often, is theirs for ever."""
        earlier, fate = self._heard[received.prompt], zlib.crc32(received.prompt.encode())
        self._heard[received.prompt] += 1
        match received.model:
            case "doomed":
                return 400
            case "wavering" if int(received.prompt[-2:]) // TIDE % 2:
                return 400
            case "faulty" if earlier < fate % 3:
                return 400
            case "shaky" if earlier == 0 and fate % 4 == 0:
                return 500
            case _:
                return None


def _answer_to(received: Received) -> str:
    if received.model == "still":
        return f"still {received.prompt[:-1]}"
    return f"answer {received.number} to {received.prompt}"
