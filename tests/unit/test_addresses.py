"""Which addresses are asked: never those that tell a machine its own secrets, in whatever form they come."""

import pytest

from jobs.delivery.addresses import refusal_of


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("169.254.169.254", "link-local"),
        ("169.254.0.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("febf:ffff::1", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("2001:0:a9fe:a9fe::1", "link-local"),
        ("64:ff9b:1::a9fe:a9fe", "a translated address"),
        ("::ffff:0:169.254.169.254", "link-local"),
        ("2001:db8::5efe:a9fe:a9fe", "link-local"),
        ("2001:db8::200:5efe:a9fe:a9fe", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("fd00:42::42", "metadata"),
        ("fd00:ec2::23", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("::ffff:100.100.100.200", "metadata"),
        ("192.0.0.192", "metadata"),
        ("168.63.129.16", "metadata"),
        ("0.0.0.0", "no address of a host"),
        ("0.1.2.3", "no address of a host"),
        ("::", "no address of a host"),
        ("::ffff:0.0.0.0", "no address of a host"),
        ("224.0.0.251", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
    ],
)
def test_an_address_that_is_nobodys_server_is_refused(address: str, what: str) -> None:
    assert refusal_of(address) == what


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", "192.168.1.9", "172.16.0.1", "fd12:3456::1"),
        *("100.64.0.1", "169.253.255.255", "169.255.0.1", "93.184.216.34", "2606:2800:220:1::1", "fec0::1"),
        *("2001:db8::5efe:10.0.0.7", "2001:db8::100:5efe:a9fe:a9fe", "::ffff:0:10.0.0.7", "fd00:42::43"),
        *("64:ff9b::5db8:d822", "2002:5db8:d822::1", "192.0.0.191", "100.100.100.201"),
    ],
)
def test_other_servers_are_asked_also_on_this_machine_and_its_networks(address: str) -> None:
    assert refusal_of(address) is None
