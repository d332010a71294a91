"""rtnetlink messages as data."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from otel_ebpf_receiver.capture.links import Link, Refused, dump_request, parse

MESSAGE = (Path(__file__).parent / "veth_newlink.bin").read_bytes()
"""RTM_NEWLINK of a veth in a bridge, up, its peer in another namespace; as the kernel sent it."""


def test_a_link_is_read_whole() -> None:
    """Name, kind, bridge, peer and namespace of a link come out of the kernel's own bytes."""
    (change,) = parse(MESSAGE).changes

    assert not change.is_gone
    assert change.link == Link(2, "v0", "veth", is_up=True, master=3, link=2, netnsid=0, mtu=1500, rx_packets=0, tx_packets=1)


def test_messages_of_one_datagram_are_all_read() -> None:
    """A datagram of several messages and the end mark gives all of them, and says that it ended."""
    gone = MESSAGE[:4] + struct.pack("=H", 17) + MESSAGE[6:]

    messages = parse(MESSAGE + gone + struct.pack("=IHHIIi", 20, 3, 0x10, 1, 0, 0))

    assert [change.is_gone for change in messages.changes] == [False, True]
    assert messages.is_done
    assert messages.was_interrupted


def test_a_bridge_port_message_is_no_link() -> None:
    """RTM_DELLINK of the family AF_BRIDGE means that a port left its bridge: it must not take the link away."""
    port = MESSAGE[:4] + struct.pack("=H", 17) + MESSAGE[6:16] + b"\x07" + MESSAGE[17:]

    assert parse(port).changes == ()


@pytest.mark.parametrize("size", range(0, len(MESSAGE), 7))
def test_a_message_cut_anywhere_is_left_out(size: int) -> None:
    """A cut message, or one whose attributes are cut while its length is right, never raises."""
    cut = struct.pack("=I", size) + MESSAGE[4:size]

    assert parse(MESSAGE[:size]).changes == ()
    assert len(parse(cut).changes) <= 1


def test_a_refusal_of_the_kernel_is_raised() -> None:
    """NLMSG_ERROR with an errno is no empty table."""
    with pytest.raises(Refused, match=r"errno 1$"):
        parse(struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -1) + dump_request(1)[:16])
