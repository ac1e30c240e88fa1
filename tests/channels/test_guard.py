"""Where messages may go, whatever an address looks like and whoever answers for its name."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from controller.channels import outbound
from controller.channels.guard import Address, connector, permitted
from controller.channels.outbound import Outbound
from controller.errors import SettingsError, Undeliverable
from tests.support.receivers import Fault, HttpReceiver

INNER = [
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10",
    "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "192.0.0.0/24", "198.18.0.0/15",
    "::1/128", "::/128", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32", "100::/64",
]  # fmt: skip
ONES_OWN = ["127.0.0.1", "10.1.2.3", "172.31.255.255", "192.168.0.1", "100.64.0.1", "::1", "fd12:3456::1"]
NEVER = [
    "169.254.169.254", "169.254.1.1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254%1",
    "100.100.100.200", "168.63.129.16", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "255.255.255.255",
    "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "::a9fe:a9fe", "::ffff:0:169.254.169.254", "2002:a9fe:a9fe::1",
]  # fmt: skip
PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:2800:220:1::1", "64:ff9b::101:101", "::ffff:1.1.1.1"]
LOW = [int(IPv6Address(text)) for text in ("::ffff:0:0", "64:ff9b::", "::ffff:0:0:0", "::")]


def inside(network: str) -> st.SearchStrategy[Address]:
    within = ip_network(network)
    first, last = int(within[0]), int(within[-1])
    kind: Any = IPv4Address if within.version == 4 else IPv6Address
    return st.integers(first, last).map(kind)


def embeddings(inner: IPv4Address) -> list[IPv6Address]:
    """Every way to write an IPv4 address into an IPv6 address that something may take it out of again."""
    number = int(inner)
    return [IPv6Address(prefix | number) for prefix in LOW] + [
        IPv6Address((0x2002 << 112) | (number << 80)),
        IPv6Address((0x20010000 << 96) | (~number & 0xFFFF_FFFF)),
    ]


@given(st.one_of(*map(inside, INNER)))
def test_nothing_within_ones_own_network_is_reached_unasked(address: Address) -> None:
    assert not permitted(address, allow_private=False)


@given(st.one_of(*(inside(network) for network in INNER if ":" not in network)))
def test_an_address_within_another_hides_nothing(address: Address) -> None:
    assert isinstance(address, IPv4Address)
    assert [one for one in embeddings(address) if permitted(one, allow_private=False)] == []


@given(st.integers(0, 2**128 - 1).map(IPv6Address))
def test_of_the_newer_addresses_only_the_global_ones_are_reached(address: IPv6Address) -> None:
    reached = permitted(address, allow_private=False)
    assert not reached or address in ip_network("2000::/3") or int(address) >> 32 << 32 in LOW


@given(st.integers(0, 2**32 - 1).map(IPv4Address), st.booleans())
def test_what_is_permitted_outside_is_permitted_inside_too(address: IPv4Address, mapped: bool) -> None:
    one = IPv6Address(f"::ffff:{address}") if mapped else address
    assert permitted(one, allow_private=True) or not permitted(one, allow_private=False)
    assert permitted(one, allow_private=False) == permitted(address, allow_private=False)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_reached(text: str) -> None:
    assert permitted(ip_address(text), allow_private=False)


@pytest.mark.parametrize("text", ONES_OWN)
def test_an_operator_may_let_messages_into_the_own_network(text: str) -> None:
    assert permitted(ip_address(text), allow_private=True)
    assert not permitted(ip_address(text), allow_private=False)


@pytest.mark.parametrize("text", NEVER)
def test_what_is_nobodys_or_hands_out_credentials_is_never_reached(text: str) -> None:
    assert not permitted(ip_address(text), allow_private=True)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"],
)
async def test_no_spelling_of_ones_own_machine_leads_there(host: str) -> None:
    async with HttpReceiver().open() as receiver:
        url = outbound.address(f"http://{host}:{receiver.port}/", "the address")
        out = Outbound("oncall", allow_private=False, timeout_seconds=5)
        with pytest.raises(Undeliverable):
            await out.post(url, b"{}", {})
        await out.close()
        assert receiver.seen == []


async def test_who_is_refused_is_told_what_to_set() -> None:
    out = Outbound("oncall", allow_private=False, timeout_seconds=5)
    with pytest.raises(Undeliverable, match=r"allow_private = true in \[channels\.oncall\]"):
        await out.post(outbound.address("http://127.0.0.1/", "the address"), b"{}", {})
    await out.close()


class Changing(AbstractResolver):
    """Answers for a name with a public address at first, and with this machine's own from then on."""

    def __init__(self, port: int) -> None:
        self._answers = ["93.184.216.34"]
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        answer = self._answers.pop() if self._answers else "127.0.0.1"
        return [
            ResolveResult(hostname=host, host=answer, port=port, family=socket.AF_INET, proto=0, flags=0),
        ]

    async def close(self) -> None:
        """Nothing is held open."""


async def test_a_name_that_changes_its_mind_between_check_and_connection_leads_nowhere() -> None:
    async with HttpReceiver().open() as receiver:
        changing = Changing(receiver.port)
        await changing.resolve("looked up before", receiver.port)
        checked = connector(changing, allow_private=False)
        async with aiohttp.ClientSession(connector=checked) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.post(f"http://rebinding.example:{receiver.port}/")
        assert changing.asked == 2
        assert receiver.seen == []


async def test_a_redirect_leads_nowhere() -> None:
    async with HttpReceiver().open() as elsewhere, HttpReceiver().open() as receiver:
        receiver.fault, receiver.moved_to = Fault.REDIRECT, elsewhere.url
        out = Outbound("oncall", allow_private=True, timeout_seconds=5)
        with pytest.raises(Undeliverable, match="redirect"):
            await out.post(outbound.address(receiver.url, "the address"), b"{}", {})
        await out.close()
        assert (len(receiver.seen), elsewhere.seen) == (1, [])


@pytest.mark.parametrize(
    "text",
    ["file:///etc/passwd", "ftp://host/", "gopher://host/", "//example/x", "example", "", "http://", "http://[/"],
)
def test_only_web_addresses_are_addresses_and_the_error_does_not_repeat_them(text: str) -> None:
    with pytest.raises(SettingsError, match=r"channels\.oncall\.url") as caught:
        outbound.address(text, "channels.oncall.url")
    assert not text or text not in str(caught.value)
