"""What network interfaces exist: RTM_GETLINK dumps and RTMGRP_LINK messages as data, and the addresses that they have. Parsing only; `watch.py`
holds the sockets.

Layouts are those of linux/rtnetlink.h and linux/if_link.h, which the kernel never changes. Messages of the AF_BRIDGE family share the type
numbers and mean something else (a port left its bridge, not: the interface is gone); they are not links.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

NEWLINK = 16
DELLINK = 17
GETLINK = 18
_NEWADDR = 20
_GETADDR = 22
_ERROR = 2
_DONE = 3
_REQUEST = 1
_DUMP = 0x300
_DUMP_INTERRUPTED = 0x10
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
"""struct ifaddrmsg of linux/if_addr.h: family, length of the prefix, flags, scope, index."""
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_SCOPE_LINK = 253
_MAPPED = bytes(10) + b"\xff\xff"
_ATTRIBUTE = struct.Struct("=HH")
_ATTRIBUTE_TYPE = 0x3FFF
"""The two upper bits of an attribute's type are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER)."""
_IFF_UP = 1


class Attribute(enum.IntEnum):
    """IFLA_* that are read."""

    NAME = 3
    MTU = 4
    LINK = 5
    MASTER = 10
    INFO = 18
    STATISTICS = 23
    NETNSID = 37


class Arphrd(enum.IntEnum):
    """ARPHRD_* that change how a link is treated."""

    ETHERNET = 1
    LOOPBACK = 772
    NONE = 65534


@dataclass(frozen=True, slots=True)
class Link:
    """One interface as rtnetlink describes it."""

    index: int
    name: str
    kind: str = ""
    """veth, bridge, vlan, …; empty for hardware and loopback."""
    arphrd: int = Arphrd.ETHERNET
    is_up: bool = False
    master: int = 0
    """Index of the bridge, bond or VRF that this is a port of; 0: none."""
    link: int = 0
    """Index of the peer of a veth, or of the device below a VLAN; in the other namespace when `netnsid` is known."""
    netnsid: int | None = None
    """Set when `link` lives in another network namespace."""
    mtu: int = 0
    rx_packets: int = 0
    tx_packets: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """What one message says: this link is now so, or it is gone."""

    link: Link
    is_gone: bool


@dataclass(frozen=True, slots=True)
class Address:
    """An address of the link `index` that is known beyond the link: 16 bytes, IPv4 as v4-mapped IPv6. `is_alone`: its network is it alone."""

    index: int
    address: bytes
    is_alone: bool


class Refused(Exception):
    """NLMSG_ERROR of the kernel; `code` is the errno."""

    def __init__(self, code: int) -> None:
        super().__init__(f"netlink request refused: errno {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Messages:
    """One datagram, parsed."""

    changes: tuple[Change, ...] = ()
    addresses: tuple[Address, ...] = ()
    is_done: bool = False
    was_interrupted: bool = False
    """The table changed during the dump: it may be inconsistent and has to be asked for again."""


def dump_request(sequence: int) -> bytes:
    """A request for every link of this network namespace, with statistics."""
    return _HEADER.pack(_HEADER.size + _LINK.size, GETLINK, _REQUEST | _DUMP, sequence, 0) + _LINK.pack(0, 0, 0, 0, 0)


def addresses_request(sequence: int) -> bytes:
    """A request for every address of this network namespace."""
    return _HEADER.pack(_HEADER.size + _ADDRESS.size, _GETADDR, _REQUEST | _DUMP, sequence, 0) + _ADDRESS.pack(0, 0, 0, 0, 0)


def link_request(index: int, sequence: int) -> bytes:
    """A request for one link."""
    return _HEADER.pack(_HEADER.size + _LINK.size, GETLINK, _REQUEST, sequence, 0) + _LINK.pack(0, 0, index, 0, 0)


def parse(data: bytes) -> Messages:
    """All messages of a datagram. What is cut short or of another kind is left out. Raises `Refused` when the kernel says no."""
    changes, addresses = list[Change](), list[Address]()
    is_done = was_interrupted = False
    for kind, flags, body in _messages(data):
        was_interrupted |= bool(flags & _DUMP_INTERRUPTED)
        if kind == _DONE:
            is_done = True
        elif kind == _ERROR and len(body) >= 4 and (code := -struct.unpack_from("=i", body)[0]):
            raise Refused(code)
        elif kind in (NEWLINK, DELLINK) and (link := parse_link(body)):
            changes.append(Change(link, kind == DELLINK))
        elif kind == _NEWADDR and (address := _parse_address(body)):
            addresses.append(address)
    return Messages(tuple(changes), tuple(addresses), is_done, was_interrupted)


def parse_link(body: bytes) -> Link | None:
    """One link from the body of RTM_NEWLINK or RTM_DELLINK (struct ifinfomsg and attributes); None when it is not a link's."""
    if len(body) < _LINK.size:
        return None
    family, arphrd, index, flags, _ = _LINK.unpack_from(body)
    found = dict(_attributes(body[_LINK.size :]))
    if family != 0 or Attribute.NAME not in found:
        return None
    statistics = found.get(Attribute.STATISTICS, b"")
    rx, tx = struct.unpack_from("=QQ", statistics) if len(statistics) >= 16 else (0, 0)
    return Link(
        index=index,
        name=_text(found[Attribute.NAME]),
        kind=_text(dict(_attributes(found.get(Attribute.INFO, b""))).get(1, b"")),
        arphrd=arphrd,
        is_up=bool(flags & _IFF_UP),
        master=_number(found.get(Attribute.MASTER)) or 0,
        link=_number(found.get(Attribute.LINK)) or 0,
        netnsid=_number(found.get(Attribute.NETNSID)),
        mtu=_number(found.get(Attribute.MTU)) or 0,
        rx_packets=rx,
        tx_packets=tx,
    )


def _parse_address(body: bytes) -> Address | None:
    if len(body) < _ADDRESS.size:
        return None
    _, length, _, scope, index = _ADDRESS.unpack_from(body)
    found = dict(_attributes(body[_ADDRESS.size :]))
    # Of a point-to-point link IFA_ADDRESS is the other end's.
    value = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
    if scope >= _SCOPE_LINK or len(value) not in (4, 16):
        return None
    return Address(index, _MAPPED + value if len(value) == 4 else value, length == 8 * len(value))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, flags, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & _ATTRIBUTE_TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")


def _number(value: bytes | None) -> int | None:
    return int(struct.unpack_from("=i", value)[0]) if value is not None and len(value) >= 4 else None
