"""Which pairs lead out of a node that is a container itself, from the addresses that the kernel names."""

from __future__ import annotations

from otel_ebpf_receiver.capture.links import Address, Link
from otel_ebpf_receiver.capture.select import Role, own_addresses, rank, role, select, uplinks
from otel_ebpf_receiver.capture.watch import list_addresses, list_links
from otel_ebpf_receiver.config.schema import Interfaces, TapMode, Taps
from otel_ebpf_receiver.identity.address import packed
from tests.capture.namespaces import join, namespace

POD, UP = Link(5, "veth1", "veth", netnsid=1, is_up=True), Link(2, "eth0", "veth", netnsid=0, is_up=True)
LINKS = {5: POD, 2: UP}
NODE = packed("172.18.0.2")
GATEWAY = Address(5, packed("10.1.0.1"), is_alone=True)
"""What the ptp plug-in gives the host end of each pod's pair."""


def test_a_pair_with_the_nodes_address_is_an_uplink() -> None:
    """Once the API server has told it; a pod's pair with its gateway's address is none."""
    found = uplinks(LINKS, [Address(2, NODE, is_alone=False), GATEWAY], frozenset({NODE}))

    assert found == {2}
    assert (role(UP, is_uplink=True), role(POD)) == (Role.NODE, Role.WORKLOAD)
    assert rank(UP, is_uplink=True) > rank(POD) == 0


def test_until_then_a_pair_with_a_network_is_one() -> None:
    """Plug-ins give a pod's pair no address, or one alone."""
    assert uplinks(LINKS, [Address(2, NODE, is_alone=False), GATEWAY], frozenset()) == {2}
    assert uplinks(LINKS, [Address(5, packed("10.9.0.1"), is_alone=False)], frozenset({NODE})) == frozenset()


def test_an_uplink_is_the_hosts() -> None:
    """`host` watches it and no pod's pair."""
    assert select(LINKS, Taps(TapMode.HOST), Interfaces(), frozenset({2})) == {2}
    assert select(LINKS, Taps(TapMode.AUTO), Interfaces(), frozenset({2})) == {2, 5}


def test_addresses_as_the_kernel_names_them() -> None:
    """Both versions, with the length of their network; link-local ones and those of dummies are not the node's own."""
    with namespace() as here, namespace() as there:
        join(here, there)
        here.ip("addr", "add", "10.78.0.1/32", "dev", "v0")
        here.ip("addr", "add", "fd00:77::1/64", "dev", "v0", "nodad")
        with here.inside():
            links, addresses = list_links(), list_addresses()
    index = next(link.index for link in links.values() if link.name == "v0")

    assert {(one.address, one.is_alone) for one in addresses if one.index == index} == {
        (packed("10.77.0.1"), False),
        (packed("10.78.0.1"), True),
        (packed("fd00:77::1"), False),
    }
    assert set(own_addresses(links, addresses)) == {packed("10.77.0.1"), packed("10.78.0.1"), packed("fd00:77::1")}
