"""What taps do and do not do to a node: nothing doubled, nothing left behind, and a tap that shows half of everything says so."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

from tests.capture.namespaces import namespace
from tests.topologies.redirect import redirected
from tests.topologies.stage import PORT, Node, Pod, load, made_of, serving, spans, told

DATAGRAMS = 200
PAIRS, ROUND = 1000, 100
RSS_MIB = 8


def datagrams(pod: Pod) -> int:
    """UDP datagrams that came into the pod, whether or not somebody listens."""
    text = subprocess.run(pod.command("cat", "/proc/net/snmp"), check=True, capture_output=True, text=True).stdout
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Udp:"))
    counts = dict(zip(names, map(int, values), strict=True))
    return counts["InDatagrams"] + counts["NoPorts"]


def send(pod: Pod, address: str) -> None:
    """Datagrams to a Service, a few at a time so that none is dropped."""
    with pod.ns.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        for number in range(DATAGRAMS):
            # Refusals come back as errors, one for each that nobody took.
            sock.setsockopt(socket.IPPROTO_IP, 11, 0)
            try:
                sock.sendto(b"x", (address, 80))
            except ConnectionRefusedError:
                sock.sendto(b"x", (address, 80))
            time.sleep(0.001 if number % 10 else 0.01)


def arrived(asker: Pod, answerer: Pod) -> int:
    """How many of them came in at the other end."""
    before = datagrams(answerer)
    send(asker, "10.96.0.1")
    time.sleep(0.5)
    return datagrams(answerer) - before


def test_packets_are_not_doubled(tmp_path: Path) -> None:
    """Behind a bridge with br_netfilter and DNAT a pod gets as many packets with the agent as without, and no device is promiscuous."""
    with made_of(tmp_path) as made:
        (node,) = made.nodes
        front, back = node.pod("front"), node.pod("back")
        node.nft(f"pre ip daddr 10.96.0.1 udp dport 80 dnat to {back.address}:{PORT}")
        without = arrived(front, back)
        with made.watched() as (watching,):
            watched = arrived(front, back)
            links = node.ns.ip("-d", "link", "show")
            assert watching.stop() == 0

    assert (without, watched) == (DATAGRAMS, DATAGRAMS)
    assert set(re.findall(r"promiscuity (\d+)", links)) <= {"0", "1"}
    # A bridge makes its own ports promiscuous; of others, and of the bridge, nobody does.
    for block in re.split(r"\n(?=\d+: )", links):
        assert "bridge_slave" in block or "promiscuity 0" in block, block


def test_a_plug_in_that_redirects_past_the_host_end(tmp_path: Path) -> None:
    """Each pair shows what its pod sends and nothing that it gets: both taps are one-way, in the log and in the status; nothing is invented."""
    with made_of(tmp_path) as made:
        (node,) = made.nodes
        front, back = node.pod("front"), node.pod("back")
        with serving(back), made.watched() as (watching,), redirected(node.ns, "h0", "h1"), redirected(node.ns, "h1", "h0"):
            load(front.command(), f"http://{back.address}:{PORT}/redirected", 8)
            watching.running.err.wait(lambda line: "one-way" in line and "h0" in line)
            watching.running.err.wait(lambda line: "one-way" in line and "h1" in line)
            taps = {one["interface"]: one["state"] for one in json.loads(watching.page("/status")[:-3])["taps"]}
            assert watching.stop() == 0

    assert (taps["h0"], taps["h1"], taps["up0"]) == ("one-way", "one-way", "attached")
    assert spans(watching, "/redirected") == []


def test_a_thousand_pairs_come_and_go(tmp_path: Path) -> None:
    """They leave no socket and no memory behind, and of a load beside them nothing is missed."""
    with made_of(tmp_path) as made, namespace() as elsewhere:
        (node,) = made.nodes
        front, back = node.pod("front"), node.pod("back")
        with serving(back), made.watched() as (watching,):
            come_and_go(node, elsewhere.name, ROUND)
            sockets, rss_mib = settled(node, watching.running.pid)
            asking = threading.Thread(target=load, args=(front.command(), f"http://{back.address}:{PORT}/beside", 40))
            asking.start()
            for _ in range(PAIRS // ROUND):
                come_and_go(node, elsewhere.name, ROUND)
            asking.join()
            after = settled(node, watching.running.pid)
            assert watching.stop() == 0

    assert after[0] == sockets
    assert after[1] - rss_mib < RSS_MIB
    assert told(watching, "/beside") == {("C", front.uid): 40, ("S", back.uid): 40}


def come_and_go(node: Node, elsewhere: str, count: int) -> None:
    """So many pairs, made and removed."""
    for text in ("link add x{0} type veth peer name y{0} netns " + elsewhere, "link del x{0}"):
        lines = "".join(text.format(number) + "\n" for number in range(count))
        subprocess.run(["ip", "-n", node.ns.name, "-batch", "-"], input=lines, text=True, check=True, capture_output=True)
        time.sleep(0.3)


def settled(node: Node, pid: int) -> tuple[int, float]:
    """Packet sockets of the node and the agent's memory (MiB), when nothing changes any more."""
    before, end_s = -1, time.monotonic() + 120
    while (
        now := len(subprocess.run(node.ns.command("cat", "/proc/net/packet"), check=True, capture_output=True).stdout.splitlines())
    ) != before:
        assert time.monotonic() < end_s
        before = now
        time.sleep(3.0)
    status = Path(f"/proc/{pid}/status").read_text()
    return now, int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024
