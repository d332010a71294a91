"""An exchange that crosses a veth, a VLAN device or a bond, and an uplink is told once. In a guest: see scripts/kernels.

The ways out of the node, all watched by one agent (`pod0` is the pod's own link):

    10.81.0.2   up1.5 (VLAN 5) on up1, tags in metadata
    10.82.0.2   up2.5 (VLAN 5) on up2, tags in the frame: the device cannot carry them beside it
    10.83.0.2   bond3 of s30 and s31, active-backup
    10.84.0.2   bond4 of s40 and s41, balance-rr: each of the two shows half of the frames
    10.85.0.2   bond5.5 (VLAN 5) on bond5 of s50 and s51
"""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.agent.process import http_server
from tests.capture.namespaces import Namespace, join, namespace
from tests.kernels.least import LEAST
from tests.kernels.modules import need
from tests.live.watched import Told, watching

WAYS = {"vlan": 81, "vlan-in-frame": 82, "bond": 83, "bond-round-robin": 84, "vlan-on-bond": 85}
KEPT = 4
"""GETs on one kept connection, for each way; and as many POSTs, whose answer ends the connection."""
QUIET = ("-sS", "-o", "/dev/null", "--max-time", "120")


def _address(node: Namespace, outside: Namespace, device: str, number: int) -> None:
    for side, name, last in ((node, device, 1), (outside, device, 2)):
        side.ip("addr", "add", f"10.{number}.0.{last}/24", "dev", name)


def _pair(node: Namespace, outside: Namespace, name: str) -> None:
    node.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", outside.name)


def _up(node: Namespace, outside: Namespace, *names: str) -> None:
    for side in (node, outside):
        for name in names:
            side.ip("link", "set", name, "up")


def _vlan(node: Namespace, outside: Namespace, below: str, number: int) -> None:
    for side in (node, outside):
        side.ip("link", "add", "link", below, "name", f"{below}.5", "type", "vlan", "id", "5")
    _up(node, outside, below, f"{below}.5")
    _address(node, outside, f"{below}.5", number)


def _bond(node: Namespace, outside: Namespace, name: str, mode: str) -> None:
    slaves = [f"s{name[-1]}0", f"s{name[-1]}1"]
    for slave in slaves:
        _pair(node, outside, slave)
    for side in (node, outside):
        side.ip("link", "add", name, "type", "bond", "mode", mode, "miimon", "100")
        for slave in slaves:
            side.ip("link", "set", slave, "master", name)
    _up(node, outside, *slaves, name)


@contextlib.contextmanager
def ways_out() -> Iterator[tuple[Namespace, Namespace]]:
    """A node with all ways out, and a pod on it."""
    need("8021q", "bonding")
    with namespace() as pod, namespace() as node, namespace() as outside, http_server(outside.command()):
        join(node, pod, names=("pod0", "eth0"))
        pod.ip("route", "add", "default", "via", "10.77.0.1")
        subprocess.run(node.command("sysctl", "-qw", "net.ipv4.ip_forward=1"), check=True)
        for name in ("up1", "up2"):
            _pair(node, outside, name)
        for side in (node, outside):
            subprocess.run(side.command("ethtool", "-K", "up2", "txvlan", "off"), check=True, capture_output=True)
        _vlan(node, outside, "up1", 81)
        _vlan(node, outside, "up2", 82)
        for name, mode, number in (("bond3", "active-backup", 83), ("bond4", "balance-rr", 84)):
            _bond(node, outside, name, mode)
            _address(node, outside, name, number)
        _bond(node, outside, "bond5", "active-backup")
        _vlan(node, outside, "bond5", 85)
        # Masqueraded, so that each answer comes back the way that its request went.
        rules = "add table ip t\nadd chain ip t post { type nat hook postrouting priority 100 ; }\n"
        rules += "add rule ip t post oifname != pod0 ip saddr 10.77.0.0/24 masquerade\n"
        subprocess.run(node.command("nft", "-f", "-"), input=rules, text=True, check=True)
        yield pod, node


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    """What the agent on the node told of the same requests over every way."""
    with ways_out() as (pod, node), watching(node, prefix=LEAST) as watched:
        for way, number in WAYS.items():
            base = f"http://10.{number}.0.2:8080/{way}"
            kept = [f"{base}/kept/{one}" for one in range(KEPT)]
            posted = [f"{base}/posted/{one}" for one in range(KEPT)]
            subprocess.run(pod.command("curl", *QUIET, *kept, "--next", *QUIET, "-d", "x" * 5000, *posted), check=True)
        yield watched.finish()


@pytest.mark.parametrize("way", WAYS)
def test_an_exchange_is_told_once(told: Told, way: str) -> None:
    """Each exchange is one line, one span and one count, whatever devices it crossed."""
    expected = {f"/{way}/{kind}/{one}": 1 for kind in ("kept", "posted") for one in range(KEPT)}

    assert Counter(str(line["path"]) for line in told.lines if str(line["path"]).startswith(f"/{way}/")) == expected
    assert Counter(span.path for span in told.spans if span.path.startswith(f"/{way}/")) == expected


def test_the_copies_were_there(told: Told) -> None:
    """The pod's link, the device above and the one below each showed the exchange, so there was something to drop."""
    exchanges = 2 * KEPT * len(WAYS)
    # Of a round-robin bond at least the bond itself, of the last way also bond and active slave beneath the VLAN device.
    copies = 2 * KEPT * (2 + 2 + 2 + 1 + 3)

    assert told.records["admitted"] == told.counted() == exchanges
    assert told.records["copies"] >= copies
