"""Which links are watched."""

from __future__ import annotations

import pytest

from otel_ebpf_receiver.capture.links import Link
from otel_ebpf_receiver.capture.select import Role, missing, rank, role, select
from otel_ebpf_receiver.config.schema import Interfaces, TapMode, Taps

LINKS = {
    link.index: link
    for link in (
        Link(1, "lo", arphrd=772, is_up=True),
        Link(2, "eth0", is_up=True),
        Link(3, "eth1"),
        Link(4, "cni0", "bridge", is_up=True),
        Link(5, "cali1", "veth", is_up=True, master=4, link=2, netnsid=0),
        Link(6, "lxc2", "veth", link=2, netnsid=1),
        Link(7, "vx0", "vxlan", is_up=True),
        Link(8, "va", "veth", is_up=True, link=9),
        Link(9, "vb", "veth", is_up=True, link=8),
        Link(10, "tun0", "tun", arphrd=65534, is_up=True),
    )
}
ALL = Interfaces()


def chosen(mode: TapMode, *names: str, interfaces: Interfaces = ALL) -> set[str]:
    """Names of what is watched."""
    return {LINKS[index].name for index in select(LINKS, Taps(mode, names), interfaces)}


def test_auto_takes_what_is_up_and_every_pod() -> None:
    """Everything that is up is watched, and a pod's pair before it is up, whatever it is called."""
    assert chosen(TapMode.AUTO) == {"lo", "eth0", "cni0", "cali1", "lxc2", "vx0", "va", "vb", "tun0"}


def test_host_leaves_pods_and_ports_out() -> None:
    """The node's own interfaces are neither pods' nor a bridge's ports."""
    assert chosen(TapMode.HOST) == {"lo", "eth0", "cni0", "vx0", "va", "vb", "tun0"}


def test_a_bridge_stands_for_its_ports() -> None:
    """Never the bridge itself, which shows only part of the traffic unless promiscuous."""
    assert chosen(TapMode.BRIDGE, "cni0") == {"cali1"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("eth1",), {"eth1"}), (("eth*", "lo"), {"eth0", "eth1", "lo"}), (("v[ab]",), {"va", "vb"}), (("nothing*",), set())],
)
def test_names_and_globs(names: tuple[str, ...], expected: set[str]) -> None:
    """Names are taken as they are, also while the link is down."""
    assert chosen(TapMode.NAMES, *names) == expected


def test_include_and_exclude_narrow_every_choice() -> None:
    """What is excluded is not watched, whoever named it."""
    assert chosen(TapMode.AUTO, interfaces=Interfaces(include=("e*", "c*"), exclude=("cali*",))) == {"eth0", "cni0"}
    assert chosen(TapMode.NAMES, "eth*", interfaces=Interfaces(exclude=("eth1",))) == {"eth0"}


def test_only_plain_names_can_be_missing() -> None:
    """A glob may wait for its links; a name that does not exist is a mistake."""
    assert missing(LINKS, Taps(TapMode.NAMES, ("eth0", "eth9", "veth*"))) == ["eth9"]
    assert missing(LINKS, Taps(TapMode.BRIDGE, ("docker0",))) == ["docker0"]
    assert missing(LINKS, Taps()) == []


def test_ranks_put_the_workload_first() -> None:
    """A copy on a bridge, tunnel or uplink loses against a single device, and that against the workload's own pair; loopback comes last."""
    names = ["lxc2", "va", "tun0", "cni0", "vx0", "eth0", "lo"]
    by_name = {link.name: link for link in LINKS.values()}

    assert [rank(by_name[name]) for name in names] == [0, 1, 1, 2, 2, 2, 3]
    assert [role(by_name[name]) for name in ("lxc2", "va", "lo")] == [Role.WORKLOAD, Role.NODE, Role.LOOPBACK]
