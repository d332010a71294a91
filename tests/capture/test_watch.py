"""The watch over real links in a network namespace."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping

import pytest

from otel_ebpf_receiver.capture.links import Link
from otel_ebpf_receiver.capture.watch import LinkWatch, list_links
from tests.capture.namespaces import namespace

WAIT_S = 20.0


class Seen:
    """Collects what a watch tells; tests wait for a state of it."""

    def __init__(self) -> None:
        self.links: Mapping[int, Link] = {}
        self.gone: set[int] = set()
        self._changed = threading.Condition()

    def __call__(self, links: Mapping[int, Link], gone: frozenset[int]) -> None:
        with self._changed:
            self.links = links
            self.gone |= gone
            self._changed.notify_all()

    def wait(self, holds: Callable[[], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(holds, WAIT_S)

    def names(self) -> set[str]:
        return {link.name for link in self.links.values()}


def test_links_are_listed() -> None:
    """A dump shows every link with its kind."""
    with namespace() as here:
        here.ip("link", "add", "br0", "type", "bridge")

        with here.inside():
            links = list_links()

    assert {link.name: link.kind for link in links.values()} == {"lo": "", "br0": "bridge"}


def test_changes_are_told() -> None:
    """Links that come, are renamed and go are told, with the namespace of a pair's other end."""
    seen = Seen()
    with namespace() as here, namespace() as there:
        with here.inside():
            watch = LinkWatch(seen)
        with watch:
            with here.inside():
                watch.start()
            before = seen.names()
            here.ip("link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", there.name)
            assert seen.wait(lambda: "v0" in seen.names())
            (pair,) = (link for link in seen.links.values() if link.name == "v0")
            here.ip("link", "set", "v0", "name", "v1")
            assert seen.wait(lambda: "v1" in seen.names() and "v0" not in seen.names())
            here.ip("link", "del", "v1")
            assert seen.wait(lambda: pair.index in seen.gone)

    assert before == {"lo"}
    assert pair.netnsid is not None


def test_a_peer_that_moves_away_is_noticed() -> None:
    """A pair made here, whose one end then goes into a pod, is known as a pod's although the kernel sends nothing about the other end."""
    seen = Seen()
    with namespace() as here, namespace() as there:
        with here.inside():
            watch = LinkWatch(seen)
        with watch:
            watch.start()
            here.ip("link", "add", "v0", "type", "veth", "peer", "name", "eth0")
            assert seen.wait(lambda: {"v0", "eth0"} <= seen.names())
            here.ip("link", "set", "eth0", "netns", there.name)

            assert seen.wait(lambda: any(link.name == "v0" and link.netnsid is not None for link in seen.links.values()))


def test_a_dropped_message_is_made_good() -> None:
    """When the kernel had to drop messages the table is read again, and nothing is missing."""
    seen = Seen()
    started, go_on = threading.Event(), threading.Event()

    def slowly(links: Mapping[int, Link], gone: frozenset[int]) -> None:
        seen(links, gone)
        if "first" in seen.names():
            started.set()
            go_on.wait(WAIT_S)

    with namespace() as here:
        with here.inside():
            watch = LinkWatch(slowly)
        watch._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with watch:
            watch.start()
            here.ip("link", "add", "first", "type", "bridge")
            assert started.wait(WAIT_S)
            for number in range(20):
                here.ip("link", "add", f"b{number}", "type", "bridge")
            here.ip("link", "del", "b7")
            go_on.set()

            assert seen.wait(lambda: "b19" in seen.names() and "b7" not in seen.names())
            assert seen.names() >= {f"b{number}" for number in range(20)} - {"b7"}
            assert watch.resyncs >= 1


def test_it_leaves_no_descriptor() -> None:
    """Stopping twice, and without a start, closes everything once."""
    before = len(os.listdir("/proc/self/fd"))
    with namespace() as here, here.inside():
        watch = LinkWatch(Seen())
        watch.start()
        watch.stop()
        watch.stop()
        LinkWatch(Seen()).stop()

    assert len(os.listdir("/proc/self/fd")) == before


def test_reviews_come_without_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The review runs on its own, so that what failed is tried again though no link changes."""
    monkeypatch.setattr("otel_ebpf_receiver.capture.watch.REVIEW_S", 0.01)
    reviewed = threading.Event()

    with namespace() as here, here.inside(), LinkWatch(Seen(), reviewed.set) as watch:
        watch.start()

        assert reviewed.wait(WAIT_S)
