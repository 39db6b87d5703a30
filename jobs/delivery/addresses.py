"""Which addresses of a network are asked, and which never: those that would tell a machine's own secrets."""

import ipaddress
import socket
from collections.abc import Iterator
from itertools import chain
from typing import Final
from urllib.parse import parse_qsl, urlsplit

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NEVER: Final = tuple(
    (ipaddress.ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "no address of a host"),  # RFC 6890; Linux takes 0.0.0.0 for itself
        ("::/128", "no address of a host"),
        ("169.254.0.0/16", "link-local"),  # RFC 3927; the metadata of AWS, Azure, Google and others
        ("fe80::/10", "link-local"),  # RFC 4291 section 2.5.6
        ("224.0.0.0/4", "multicast"),  # RFC 5771
        ("ff00::/8", "multicast"),  # RFC 4291 section 2.7
        ("255.255.255.255/32", "broadcast"),  # RFC 919
        ("fd00:ec2::/32", "metadata"),  # docs.aws.amazon.com, "Access instance metadata": fd00:ec2::254
        ("fd00:42::42/128", "metadata"),  # scaleway.com, "How to use instance metadata"
        ("fd20:ce::254/128", "metadata"),  # docs.cloud.google.com, "About VM metadata"
        ("100.100.100.200/32", "metadata"),  # alibabacloud.com, "Instance metadata"
        ("168.63.129.16/32", "metadata"),  # learn.microsoft.com, "What is IP address 168.63.129.16?"
        ("192.0.0.192/32", "metadata"),  # Oracle Cloud Infrastructure Classic, "Retrieving instance metadata"
        ("64:ff9b:1::/48", "a translated address"),  # RFC 8215: what it stands for only its network knows
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")  # RFC 4291 section 2.5.5.1
_TRANSLATED: Final = ipaddress.IPv6Network("::ffff:0:0:0/96")  # RFC 2765 section 2.1
_ISATAP: Final = 0x5EFE  # RFC 5214 section 6.1, before the last 32 bits; the bit for "universal" may be set
_UNIVERSAL: Final = 0x0200_0000
_LOOPBACK: Final = ipaddress.IPv6Address("::1")


def refusal_of(address: str) -> str | None:
    """Return what an address is that is not to be asked, such as `link-local`; None for one that may be.

    An IPv4 address within an IPv6 address is judged like itself. Loopback and private networks may be asked.
    Raises ValueError for what is no address.
    """
    whole = ipaddress.ip_address(address)
    every = chain([whole], _within(whole))
    return next((what for each in every for network, what in _NEVER if each in network), None)


def refusal_of_host(host: str) -> str | None:
    """Return what a host is that is written as an address, in any spelling, and is not to be asked.

    Names are not looked up: where they lead to is judged whenever they are asked.
    """
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
        return refusal_of(str(found[0][4][0]))
    except (OSError, UnicodeError, ValueError):
        return None


def refusal_in_url(url: str) -> str | None:
    """Return what is not to be asked of the addresses that an Apprise URL names, as host or in its query.

    A number alone is none: in the place of a host many services have the number of a telephone or a chat.
    """
    try:
        parts = urlsplit(url)
        named = [parts.hostname or "", *(value for _, value in parse_qsl(parts.query))]
    except ValueError:
        return None
    addresses = (each.strip("[]") for each in named if "." in each or ":" in each or "x" in each.lower())
    return next((what for each in addresses if (what := refusal_of_host(each)) is not None), None)


def _within(address: _Address) -> Iterator[_Address]:
    """Yield the IPv4 addresses that an IPv6 address leads to, in every form that has them."""
    if isinstance(address, ipaddress.IPv4Address) or address == _LOOPBACK:
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    is_isatap = int(address) >> 32 & 0xFFFF_FFFF & ~_UNIVERSAL == _ISATAP
    if is_isatap or any(address in each for each in (_NAT64, _COMPATIBLE, _TRANSLATED)):
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
