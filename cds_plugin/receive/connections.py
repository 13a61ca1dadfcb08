"""Which connections may come in: how many at once, how many from one address, and how fast."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from enum import StrEnum
from ipaddress import IPv6Address, ip_address, ip_network

from cds_plugin.receive.bounds import ADDRESSES_REMEMBERED, BURST_SECONDS, Bounds

HOST_PREFIX_IPV6 = 64
"""One host has a whole /64 to choose its IPv6 addresses from (RFC 4291 section 2.5.4)."""


class Refusal(StrEnum):
    """Why a connection was closed before a byte of it was read."""

    TOO_MANY = "too many connections"
    TOO_MANY_FROM_ADDRESS = "too many connections from one address"
    TOO_FAST = "connections come too fast"


class Rate:
    """A rate per address, with a burst; remembers a bounded number of addresses."""

    def __init__(self, per_second: float, burst_seconds: float = BURST_SECONDS) -> None:
        self._interval = 1.0 / per_second
        self._burst = burst_seconds
        self._due: OrderedDict[str, float] = OrderedDict()

    def allows(self, address: str, now: float) -> bool:
        """Return whether one more may come at `now` (seconds of a steady clock), and count it if so."""
        due = max(self._due.pop(address, now), now)
        allowed = due - now < self._burst
        self._due[address] = due + self._interval if allowed else due
        if len(self._due) > ADDRESSES_REMEMBERED:
            self._due.popitem(last=False)
        return allowed


class Connections:
    """The connections of one listener process, over all its ports; safe to use from every thread.

    `established` returns the addresses of those that became associations or may still. The others, whose
    handshake runs, are counted here.
    """

    def __init__(self, bounds: Bounds, established: Callable[[], Iterable[str]]) -> None:
        self._bounds = bounds
        self._established = established
        self._rate = Rate(bounds.connections_per_second)
        self._arriving: Counter[str] = Counter()
        self._lock = threading.Lock()

    def admit(self, address: str, now: float) -> Refusal | None:
        """Return why a connection must not come in; None where it may, and then it is arriving."""
        source = source_of(address)
        with self._lock:
            refusal = self._refusal(source, now)
            if refusal is None:
                self._arriving[source] += 1
            return refusal

    def arrived(self, address: str) -> None:
        """Note that an admitted connection became an association, or ended before."""
        source = source_of(address)
        with self._lock:
            self._arriving[source] -= 1
            if not self._arriving[source]:
                del self._arriving[source]

    def _refusal(self, source: str, now: float) -> Refusal | None:
        if not self._rate.allows(source, now):
            return Refusal.TOO_FAST
        there = Counter(map(source_of, self._established())) + self._arriving
        if there.total() >= self._bounds.connections:
            return Refusal.TOO_MANY
        if there[source] >= self._bounds.connections_per_address:
            return Refusal.TOO_MANY_FROM_ADDRESS
        return None


def source_of(address: str) -> str:
    """Return what is counted as one source: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, HOST_PREFIX_IPV6), strict=False).network_address)
