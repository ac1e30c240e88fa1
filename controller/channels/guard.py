"""Where messages may go: not into the network that Rampart itself stands in, unless its operator says so.

An address is checked as the socket to it is made. What a name resolved to a moment earlier, how a number is
spelled, and where a redirect would lead therefore cannot matter.
"""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp import AddrInfoType, TCPConnector
from aiohttp.abc import AbstractResolver

Address = IPv4Address | IPv6Address

# Beside what is multicast, link-local or unspecified. The last two are tunnels that no receiver lives in.
NOBODYS = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8", "192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "100::/64", "2001::/32", "2002::/16",
    )
)  # fmt: skip
# Where clouds hand credentials to whoever asks from within; some lie among private or even public addresses.
CREDENTIALS = frozenset(
    ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16")
)
# Their last 32 bits are the IPv4 address that a packet ends up at: mapped, translated twice, and compatible.
EMBEDDING = tuple(ip_network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96", "::ffff:0:0:0/96", "::/96"))
GLOBAL_UNICAST = ip_network("2000::/3")
LOOPBACK = IPv6Address("::1")


class AddressRefused(OSError):
    """No connection was made. The text is the same for all, so that several of them remain one."""


def permitted(address: Address, *, allow_private: bool) -> bool:
    if isinstance(address, IPv6Address):
        address = _meant(address)
    if address in CREDENTIALS or any(address in network for network in NOBODYS):
        return False
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        return False
    return allow_private or _public(address)


def _meant(address: IPv6Address) -> Address:
    """Without its zone, which is no part of the number; or the IPv4 address that is written into it."""
    number = int(address)
    bare = IPv6Address(number)
    # ::1 and :: look like IPv4 addresses, too.
    if number > int(LOOPBACK) and any(bare in network for network in EMBEDDING):
        return IPv4Address(number & 0xFFFF_FFFF)
    return bare


def _public(address: Address) -> bool:
    return address.is_global and (isinstance(address, IPv4Address) or address in GLOBAL_UNICAST)


def connector(resolver: AbstractResolver, *, allow_private: bool) -> TCPConnector:
    """Each request resolves its host anew and has a connection of its own: nothing is sent on an old one."""

    def checked(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, target = info
        if not permitted(ip_address(target[0]), allow_private=allow_private):
            raise AddressRefused("the address is not permitted")
        return socket.socket(family, kind, protocol)

    return TCPConnector(socket_factory=checked, use_dns_cache=False, force_close=True, resolver=resolver)
