"""The server that a request names: Host, or the authority of an absolute target, taken apart once per distinct text.

What is no `host[:port]` by RFC 9110 7.2, or was cut, is as good as absent: then the connection's own address and port stand in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import I64, U8, U64
from otel_ebpf_receiver.telemetry.keys import KeyIndex, mix, text_keys, words

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._~!$&'()*+,;=%-]+))(?::(?P<port>[0-9]{0,5}))?")
_ENTRIES_MAX = 16384
_WIRE = 0x77697265
NameOf = Callable[[bytes], str]
I32 = npt.NDArray[np.int32]
U16 = npt.NDArray[np.uint16]
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Authority:
    """`text` as in a URL; `port` 0: not known; `literal`: the 16 bytes of `address` where it is no name."""

    address: str
    port: int
    text: str
    literal: bytes = b""


@dataclass(frozen=True, slots=True)
class Named:
    """The servers of n rows. Rows of equal `key` have equal `of`, rows of equal `text_key` equal `text`."""

    key: U64
    text_key: U64
    numbers: I32
    names: npt.NDArray[np.object_] | None
    """What stands for an address that identity knows."""
    entries: list[Authority]

    def of(self, row: int) -> tuple[str, int]:
        """`server.address` and `server.port`, 0: not known."""
        entry = self.entries[int(self.numbers[row])]
        name = str(self.names[row]) if self.names is not None else ""
        return name or entry.address, entry.port

    def text(self, row: int) -> str:
        """As in a URL, as it was on the wire."""
        return self.entries[int(self.numbers[row])].text


class Authorities:
    """Remembers what it has parsed. Bounded: full, it starts afresh, and views made before keep the old entries."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._index = KeyIndex()
        self._entries: list[Authority] = []
        # Of each entry: hashes of what it says and of its text; whether it is an address; whether it is nothing.
        self._keys, self._text_keys = np.zeros(1024, np.uint64), np.zeros(1024, np.uint64)
        self._is_literal, self._is_invalid = np.zeros(1024, bool), np.zeros(1024, bool)

    def name(self, host: U8, lengths: I64, address: U8, port: I64, default: U16, name_of: NameOf) -> Named:
        """`host` (n x 64, zero behind `lengths`), without a port of its own that of its scheme, `default`; where it is empty, cut or no host,
        `address` (n x 16) and `port` count."""
        if len(self._entries) > _ENTRIES_MAX:
            self._forget()
        keys = mix(text_keys(host, lengths), default)
        numbers = self._index.number(keys, lambda row: self._add(_parse_row(host, default, row)))
        absent = np.flatnonzero(self._is_invalid[numbers] | (lengths == 0) | (lengths > host.shape[1]))
        if absent.size:
            wire, ports = np.ascontiguousarray(address[absent]), port[absent]
            keys = mix(ports, _WIRE, *words(wire))
            numbers[absent] = self._index.number(keys, lambda row: self._add(wire_authority(wire[row].tobytes(), int(ports[row]))))
        key, names = self._keys[numbers], None
        literal = np.flatnonzero(self._is_literal[numbers])
        if literal.size:
            names = self._names(numbers, literal, key, name_of)
        return Named(key, self._text_keys[numbers], numbers, names, self._entries)

    def _names(self, numbers: I32, literal: I64, key: U64, name_of: NameOf) -> npt.NDArray[np.object_] | None:
        """The names of addresses that are known, or None; `key` is changed for the rows that have one."""
        distinct, where = np.unique(numbers[literal], return_inverse=True)
        entries = [self._entries[number] for number in distinct.tolist()]
        found = [name_of(entry.literal) for entry in entries]
        if not any(found):
            return None
        keys = [_hash((name or entry.address, entry.port)) for name, entry in zip(found, entries, strict=True)]
        key[literal] = np.array(keys, np.uint64)[where]
        out = np.full(len(numbers), "", object)
        out[literal] = np.array(found, object)[where]
        return out

    def _add(self, authority: Authority | None) -> int:
        number = len(self._entries)
        if number == len(self._keys):
            self._keys, self._text_keys = _doubled(self._keys), _doubled(self._text_keys)
            self._is_literal, self._is_invalid = _doubled(self._is_literal), _doubled(self._is_invalid)
        entry = authority or Authority("", 0, "")
        self._entries.append(entry)
        self._keys[number], self._text_keys[number] = _hash((entry.address, entry.port)), _hash(entry.text)
        self._is_literal[number], self._is_invalid[number] = bool(entry.literal), authority is None
        return number


def _doubled(column: npt.NDArray[_T]) -> npt.NDArray[_T]:
    return np.concatenate((column, np.zeros_like(column)))


def _hash(value: object) -> int:
    return hash(value) & 0xFFFFFFFFFFFFFFFF


def _parse_row(host: U8, default: U16, row: int) -> Authority | None:
    return parse(host[row].tobytes().rstrip(b"\0").decode("latin-1"), int(default[row]))


def parse(text: str, default: int) -> Authority | None:
    """Takes `host[:port]` apart; None where it is none. Port absent: `default`."""
    found = _HOST.fullmatch(text)
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else default
    if port > 65535:
        return None
    host = found["six"] or found["name"]
    literal = _literal(host)
    if found["six"] and not literal:
        return None
    return Authority(host, port, text.removesuffix(":") if not found["port"] else text, literal)


def wire_authority(address: bytes, port: int) -> Authority:
    """The authority of a connection's own address."""
    text = address_text(address)
    host = f"[{text}]" if ":" in text else text
    return Authority(text, port, host if port == DEFAULT_PORTS["http"] else f"{host}:{port}", address)


def address_text(address: bytes) -> str:
    """The text of 16 bytes; v4-mapped ones as IPv4."""
    six = IPv6Address(address)
    return str(six.ipv4_mapped or six)


def _literal(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        return b""
    return address.packed if isinstance(address, IPv6Address) else bytes(10) + b"\xff\xff" + address.packed
