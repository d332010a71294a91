"""Addresses as the agent keeps them: 16 bytes, IPv4 as v4-mapped IPv6 (RFC 4291, section 2.5.5.2). Text and networks become that form
here and nowhere else."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
_MAPPED = bytes(10) + b"\xff\xff"


@lru_cache(maxsize=16384)
def packed(text: str) -> bytes:
    """The 16 bytes of an address in text. Raises ValueError."""
    parts = text.split(".")
    if len(parts) == 4 and all(part.isdecimal() for part in parts):
        # hot: benchmarks/identity.py. A tenth of what ip_address takes; numbers above 255 raise too.
        return _MAPPED + bytes(map(int, parts))
    address = ip_address(text)
    return _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def prefix(network: Network) -> tuple[bytes, int]:
    """First address (16 bytes) and length of the prefix, counted in 128 bits."""
    if isinstance(network, IPv4Network):
        return _MAPPED + network.network_address.packed, 96 + network.prefixlen
    return network.network_address.packed, network.prefixlen


def network_of(text: str) -> Network:
    """A network in text, host bits allowed. Raises ValueError."""
    return ip_network(text, strict=False)
