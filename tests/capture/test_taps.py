"""Taps on real links; the filter is a classic one that drops everything, as the kernel programs do."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_ebpf_receiver.capture.links import Link
from otel_ebpf_receiver.capture.taps import Taps, is_one_way
from otel_ebpf_receiver.capture.watch import list_links
from otel_ebpf_receiver.config.schema import Capture
from otel_ebpf_receiver.config.schema import Taps as Choice
from tests.capture.namespaces import Namespace, join, namespace

SO_ATTACH_FILTER = 26
NOTHING = frozenset[int]()


class DropAll:
    """Stands for the kernel programs: a filter that keeps nothing, and a book of taps."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.counts: dict[int, dict[str, int]] = {}
        self.refuse: set[int] = set()

    def attach(self, sock: socket.socket) -> None:
        code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(code)))

    def set_tap(self, ifindex: int, domain: int | None = None) -> bool:
        if ifindex in self.refuse:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.known.add(ifindex)
        return True

    def forget_tap(self, ifindex: int) -> None:
        self.known.discard(ifindex)

    def tap_counters(self, ifindex: int) -> dict[str, int]:
        return self.counts.get(ifindex, {})


def packet_sockets(here: Namespace) -> list[str]:
    """Lines of /proc/net/packet in the namespace."""
    with here.inside():
        return Path("/proc/thread-self/net/packet").read_text().splitlines()[1:]


def test_taps_follow_the_links() -> None:
    """One socket per watched link, bound to its index for every protocol, in no promiscuous mode, gone with the link."""
    programs = DropAll()
    with namespace() as here, namespace() as there:
        join(here, there)
        with here.inside():
            taps = Taps(programs, Capture())
            links = list_links()
            taps.reconcile(links, NOTHING)
            bound = {int(line.split()[4]): line.split()[3] for line in packet_sockets(here)}
            shown = here.ip("-d", "link", "show")
            here.ip("link", "del", "v0")
            gone = frozenset(links.keys() - list_links().keys())
            taps.reconcile(list_links(), gone)
            left = len(packet_sockets(here))
            taps.stop()
            taps.stop()

        assert bound == dict.fromkeys(links, "0003")
        assert not re.search(r"promiscuity [1-9]", shown)
        assert left == len(links) - 1
        assert packet_sockets(here) == []
    assert programs.known == {1}


def test_nothing_is_ever_queued() -> None:
    """Packets that pass leave no byte in the socket."""
    with namespace() as here, namespace() as there:
        join(here, there)
        with here.inside():
            taps = Taps(DropAll(), Capture(taps=Choice()))
            taps.reconcile(list_links(), NOTHING)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(20):
                    sender.sendto(b"x", ("10.77.0.2", 9))
            queued = [line.split()[6] for line in packet_sockets(here)]
            taps.stop()

    assert queued
    assert set(queued) == {"0"}


def test_a_link_that_returns_under_its_index_is_attached_anew() -> None:
    """An index that went away and is back is another link: the old socket hears nothing of it."""
    programs = DropAll()
    with namespace() as here:
        here.ip("link", "add", "b0", "index", "77", "type", "bridge")
        here.ip("link", "set", "b0", "up")
        with here.inside():
            taps = Taps(programs, Capture())
            taps.reconcile(list_links(), NOTHING)
            here.ip("link", "del", "b0")
            here.ip("link", "add", "b1", "index", "77", "type", "bridge")
            here.ip("link", "set", "b1", "up")
            taps.reconcile(list_links(), frozenset({77}))
            bound = {int(line.split()[4]) for line in packet_sockets(here)}
            taps.stop()

    assert bound == {1, 77}
    assert taps.attached_total == 3


def test_a_tap_that_cannot_be_attached_is_named_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """The others go on; the failure shows in the log once and in the state until it works."""
    programs = DropAll()
    with namespace() as here, here.inside(), caplog.at_level(logging.ERROR):
        here.ip("link", "add", "b0", "index", "77", "type", "bridge")
        here.ip("link", "set", "b0", "up")
        programs.refuse = {77}
        taps = Taps(programs, Capture())
        taps.reconcile(list_links(), NOTHING)
        taps.review()
        failed = dict(taps.taps)
        programs.refuse = set()
        taps.review()
        taps.stop()

    assert failed[77].sock is None
    assert "No space" in failed[77].error
    assert failed[1].sock is not None
    assert [vars(record)["interface"] for record in caplog.records] == ["b0"]
    assert taps.taps[77].sock is not None


def test_a_link_that_is_gone_already_is_no_failure() -> None:
    """Between the message and the attachment a short-lived pod may be gone."""
    with namespace() as here, here.inside():
        taps = Taps(DropAll(), Capture())
        taps.reconcile({5: Link(5, "v9", "veth", is_up=True, netnsid=0)}, NOTHING)

    assert dict(taps.taps) == {}
    assert taps.failed_total == 0


@pytest.mark.parametrize(
    ("counts", "expected"),
    [({}, False), ({"one_sided": 1}, False), ({"one_sided": 9}, True), ({"one_sided": 9, "two_sided": 1}, False)],
)
def test_one_way_is_seldom_chance(counts: Mapping[str, int], expected: bool) -> None:
    """One half connection may have been half over at the start; several and never a whole one are a tap that shows one direction."""
    assert is_one_way(counts) is expected


def test_a_one_way_tap_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Log and state say it."""
    programs = DropAll()
    programs.counts[1] = {"one_sided": 4, "two_sided": 0}
    with namespace() as here, here.inside(), caplog.at_level(logging.WARNING):
        taps = Taps(programs, Capture())
        taps.reconcile(list_links(), NOTHING)
        taps.review()
        taps.review()
        taps.stop()

    assert [record.message.split(":")[0] for record in caplog.records] == ["tap is one-way"]
    assert taps.taps[1].is_one_way


def test_many_pairs_come_and_go_without_a_trace() -> None:
    """After hundreds of pairs came and went no socket and no entry is left, and the survivor is still attached by its first socket."""
    programs = DropAll()
    with namespace() as here, namespace() as there:
        join(here, there, names=("keep", "eth0"))
        with here.inside():
            taps = Taps(programs, Capture())
            taps.reconcile(list_links(), NOTHING)
            survivor = {index: tap.sock for index, tap in taps.taps.items()}
            for start in range(0, 200, 50):
                batch = "".join(f"link add p{n} type veth peer name q{n} netns {there.name}\n" for n in range(start, start + 50))
                _batch(here, batch)
                before = list_links()
                taps.reconcile(before, NOTHING)
                _batch(here, "".join(f"link del p{n}\n" for n in range(start, start + 50)))
                after = list_links()
                taps.reconcile(after, frozenset(before.keys() - after.keys()))
            left = packet_sockets(here)
            taps.stop()

    assert taps.attached_total == 200 + len(survivor)
    assert len(left) == len(survivor) == 2
    assert {index: tap.sock for index, tap in taps.taps.items()} == survivor
    assert programs.known == set(survivor)


def _batch(here: Namespace, lines: str) -> None:
    import subprocess

    subprocess.run(["ip", "-n", here.name, "-batch", "-"], input=lines, text=True, check=True, capture_output=True)
