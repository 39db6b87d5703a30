"""For a child process: whoever opens a socket in it, none is led to an address that is never asked."""

import socket
import sys

from jobs.delivery.addresses import refusal_of

_EVENTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
"""What Python tells its hooks of before it is done (docs.python.org, "Audit events table")."""


def guard() -> None:
    """Let every attempt to reach such an address fail with OSError, from now on to the end of the process."""
    sys.addaudithook(_judge)


def _judge(event: str, args: tuple[object, ...]) -> None:
    if event not in _EVENTS:
        return
    match args:
        case (_, (str() as host, int() as port, *_)):
            for address in _addresses(host, port):
                what = refusal_of(address)
                if what is not None:
                    raise OSError(f"{host} leads to {address}, which is {what} and is not asked")
        case _:
            return  # a path of this machine, or where the socket is connected to already


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, which mostly is one itself."""
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, port)]
