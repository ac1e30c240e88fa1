"""Wrong secrets, counted by where they came from, so that nobody guesses one. Of every door that asks for one."""

import ipaddress
from typing import Any

from litestar.connection import ASGIConnection
from msgspec import Struct

TIDY_SECONDS = 1.0
IPV6_SITE_BITS = 64
"""One IPv6 customer has at least that many addresses; they count as one."""


class Allowance(Struct):
    """Wrong tokens this address may still present; refilled over time."""

    left: float
    at: float


class FailureLimiter:
    """Counts wrong tokens per client address in bounded memory (promise I20).

    Only a wrong token is ever slowed down, so that a flood from one address does not lock out its honest
    users. When the table is full, newcomers share one allowance: filling the table resets nobody's.
    """

    def __init__(self, *, burst: int = 20, per_minute: int = 20, addresses: int = 10_000) -> None:
        self._burst = burst
        self._per_second = per_minute / 60
        self._addresses = addresses
        self._allowances: dict[str, Allowance] = {}
        self._newcomers = Allowance(left=burst, at=0.0)
        self._tidied_at = 0.0

    def __len__(self) -> int:
        return len(self._allowances)

    def wrong_token(self, address: str, now: float) -> float:
        """Count one. Returns the seconds to wait, 0.0 while there is allowance. `now` is monotonic."""
        allowance = self._allowance(address, now)
        allowance.left = self._refilled(allowance, now)
        allowance.at = now
        if allowance.left < 1:
            return (1 - allowance.left) / self._per_second
        allowance.left -= 1
        return 0.0

    def _allowance(self, address: str, now: float) -> Allowance:
        found = self._allowances.get(address)
        if found is not None:
            return found
        if len(self._allowances) >= self._addresses and now - self._tidied_at >= TIDY_SECONDS:
            self._forget_refilled(now)
        if len(self._allowances) >= self._addresses:
            return self._newcomers
        return self._allowances.setdefault(address, Allowance(left=self._burst, at=now))

    def _refilled(self, allowance: Allowance, now: float) -> float:
        return min(self._burst, allowance.left + (now - allowance.at) * self._per_second)

    def _forget_refilled(self, now: float) -> None:
        self._tidied_at = now
        self._allowances = {
            address: allowance
            for address, allowance in self._allowances.items()
            if self._refilled(allowance, now) < self._burst
        }


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The peer of the connection. X-Forwarded-For is whatever the caller likes it to be."""
    host = connection.client.host if connection.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, IPV6_SITE_BITS), strict=False))
