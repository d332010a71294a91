"""Which links are watched, and what stands behind each: pure functions over the table of links.

It opens nothing. Names are never assumed: the host end of a pod's pair is known by its peer living in another network namespace.
"""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Iterable, Mapping

from otel_ebpf_receiver.capture.links import Address, Arphrd, Link
from otel_ebpf_receiver.config.schema import Interfaces, TapMode, Taps

PAIRS = frozenset({"veth", "netkit"})
STACKED = frozenset(
    {"bridge", "bond", "team", "vlan", "macvlan", "ipvlan", "vrf", "vxlan", "geneve", "gre", "gretap", "erspan", "ip6gre", "ip6gretap"}
) | frozenset(
    {"ip6erspan", "ipip", "ip6tnl", "sit", "vti", "vti6", "xfrm", "wireguard", "hsr", "macsec", "openvswitch", "batadv", "ipoib", "l2tpeth"}
)
"""Kinds whose frames also cross another device: what they show is mostly a copy."""


class Role(enum.Enum):
    """Who is behind a tap."""

    WORKLOAD = "workload"
    """The host end of a pair: frames that arrive were sent by what lives in the other namespace."""
    NODE = "node"
    LOOPBACK = "loopback"


def role(link: Link, *, is_uplink: bool = False) -> Role:
    """What stands behind the link. `is_uplink`: it is known to lead to other nodes, though it looks like a workload's."""
    if link.arphrd == Arphrd.LOOPBACK:
        return Role.LOOPBACK
    return Role.WORKLOAD if is_workload_end(link) and not is_uplink else Role.NODE


def rank(link: Link, *, is_uplink: bool = False) -> int:
    """Of several taps that show the same exchange the one of the lowest rank is believed.

    0: a workload's. 1: other single devices. 2: stacked ones and the uplink. 3: loopback.
    """
    if link.arphrd == Arphrd.LOOPBACK:
        return 3
    if is_workload_end(link) and not is_uplink:
        return 0
    return 2 if is_uplink or link.kind in STACKED or not link.kind else 1


def is_workload_end(link: Link) -> bool:
    """A pair whose other end lives in another network namespace."""
    return link.kind in PAIRS and link.netnsid is not None


def uplinks(links: Mapping[int, Link], addresses: Iterable[Address], node: frozenset[bytes]) -> frozenset[int]:
    """Pairs that lead out of a node which is a container itself: those that have an address of the node (16 bytes).

    Until these are known, those with an address of a network: plug-ins give a pod's pair none, or one that is alone in its network.
    """
    pairs = {index for index, link in links.items() if is_workload_end(link)}
    return frozenset(one.index for one in addresses if one.index in pairs and (one.address in node if node else not one.is_alone))


def own_addresses(links: Mapping[int, Link], addresses: Iterable[Address]) -> list[bytes]:
    """This node's addresses on its bridges, tunnels and cards. Dummies hold those of Services (IPVS, node-local DNS)."""
    own = {index for index, link in links.items() if link.kind != "dummy" and link.arphrd != Arphrd.LOOPBACK}
    return list(dict.fromkeys(one.address for one in addresses if one.index in own))


def select(links: Mapping[int, Link], taps: Taps, interfaces: Interfaces, up: frozenset[int] = frozenset()) -> frozenset[int]:
    """Indices of the links to watch. A pair is watched before it is up, so that its first packet is seen; anything else while it is up.

    `up`: pairs that are uplinks.
    """
    return frozenset(
        index
        for index, link in links.items()
        if _is_wanted(link, links, taps, is_pod=is_workload_end(link) and index not in up) and _is_included(link.name, interfaces)
    )


def missing(links: Mapping[int, Link], taps: Taps) -> list[str]:
    """Names of the configuration that no link has. A glob may match nothing: its links may come."""
    names = {link.name for link in links.values()}
    wanted = taps.names if taps.mode in (TapMode.NAMES, TapMode.BRIDGE) else ()
    return [name for name in wanted if name not in names and not _is_glob(name)]


def _is_wanted(link: Link, links: Mapping[int, Link], taps: Taps, *, is_pod: bool) -> bool:
    if taps.mode is TapMode.NAMES:
        return _matches(link.name, taps.names)
    if taps.mode is TapMode.BRIDGE:
        master = links.get(link.master)
        return master is not None and _matches(master.name, taps.names)
    if taps.mode is TapMode.HOST:
        return link.is_up and not link.master and not is_pod
    return link.is_up or is_pod


def _is_included(name: str, interfaces: Interfaces) -> bool:
    return (not interfaces.include or _matches(name, interfaces.include)) and not _matches(name, interfaces.exclude)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_glob(name: str) -> bool:
    return any(character in name for character in "*?[")
