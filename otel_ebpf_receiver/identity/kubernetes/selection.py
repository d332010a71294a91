"""Which addresses can matter at all when only some namespaces are reported: the kernel leaves the rest alone. Pure.

A pod that is not known yet is within the node's range and stays watched; only who is known to be unwanted is taken out of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network

from otel_ebpf_receiver.identity.address import Network
from otel_ebpf_receiver.identity.kubernetes.objects import Node, Pod
from otel_ebpf_receiver.identity.kubernetes.rows import Around, is_selected

_LOOPBACKS: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Selection:
    """Exchanges with one of `wanted` at either side are reported; the narrowest network decides, so that `others` are out of it."""

    wanted: tuple[Network, ...]
    others: tuple[Network, ...]


def selection(pods: Iterable[Pod], node: Node | None, around: Around) -> Selection | None:
    """What to watch on this node; None: everything, because all may be wanted or the node does not say where its pods are."""
    options = around.options
    if not options.include or node is None or not node.networks:
        return None
    own = [one for one in pods if not (one.is_host_network or one.is_ended)]
    wanted, others = list[Network](), list[Network]()
    for one in own:
        side = wanted if is_selected(one.namespace, one.annotations, around) else others
        side += [_single(address) for address in one.addresses]
    outside = [one for one in wanted if not any(_holds(network, one) for network in node.networks)]
    here = [_single(address) for address in (*node.addresses, *options.own_addresses)]
    return Selection(tuple(sorted({*node.networks, *outside, *here, *_LOOPBACKS}, key=str)), tuple(sorted(set(others), key=str)))


def _single(address: bytes) -> Network:
    parsed = IPv6Address(address)
    return ip_network(parsed.ipv4_mapped or parsed)


def _holds(network: Network, single: Network) -> bool:
    return single.version == network.version and single.network_address in network
