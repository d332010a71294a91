"""The loaded kernel side: its programs, maps, counters and what user space writes into it. Owns every descriptor.

Addresses go to the kernel as 16 bytes, IPv4 as v4-mapped IPv6; ports in host order (bpf/net.h, bpf/flow.h).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from otel_ebpf_receiver.errors import CaptureError
from otel_ebpf_receiver.kernel.assemble import ENTRY, GATE, KernelPart, ProgramText
from otel_ebpf_receiver.kernel.parked import Parked
from otel_ebpf_receiver.kernel.ring import Ring
from otel_ebpf_receiver.kernel.syscall import BatchWalk, Map, TestRun, possible_cpus

TAP_COUNTERS = ("flows", "http", "tls", "http2", "other", "one_sided", "two_sided")
"""Words of `struct tap` (bpf/flow.h)."""
SO_ATTACH_BPF = 50
WALK = 256

Address = str | ipaddress.IPv4Address | ipaddress.IPv6Address
Network = str | ipaddress.IPv4Network | ipaddress.IPv6Network


class Source(Protocol):
    """What is needed of a source: its C as data, and the dtype of its records."""

    @property
    def part(self) -> KernelPart: ...
    @property
    def record(self) -> np.dtype[np.void]: ...


class Transport(Protocol):
    """How records come to user space."""

    def drain(self, limit: int = ...) -> np.ndarray[Any, np.dtype[np.void]]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OpenRequests:
    """A walk over the requests that wait for their answer. `oldest_ns`: start of the oldest (CLOCK_MONOTONIC), 0 if none."""

    count: int
    oldest_ns: int


def packed(address: Address) -> bytes:
    """16 bytes of an address, IPv4 as v4-mapped IPv6. Raises ValueError."""
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else b"\0" * 10 + b"\xff\xff" + parsed.packed


class Programs:
    """One loaded set of programs, as a context manager. Not for use by several threads but where a method says so."""

    def __init__(self, fds: Mapping[str, int], text: ProgramText, sources: Sequence[Source], transport: str, bcc: str) -> None:
        self._fds = list(fds.values())
        self.bcc_version = bcc
        self.program_fds = {name: fds[f"program {name}"] for name in (GATE, *text.slots) if name}
        self.entry_fd = self.program_fds[ENTRY]
        self._maps = {name: Map(fd) for name, fd in fds.items() if not name.startswith("program ")}
        self._counter_names = dict(text.counters)
        self._cpus = possible_cpus()
        self._run = TestRun(self.entry_fd)
        self._taps: set[int] = set()
        self._prefixes: set[bytes] = set()
        self._generation = 0
        self._settings = {"only": 0, "watching": 0, "ignoring": 0}
        for slot, name in enumerate(text.slots):
            if name:
                self._maps["programs"].put(struct.pack("=I", slot), struct.pack("=I", self.program_fds[name]))
        self.transports: dict[str, Transport] = {}
        for source in sources:
            if source.part.records:
                table = self._maps[source.part.records]
                self.transports[source.part.name] = Ring(table, source.record) if transport == "ring" else Parked(table, source.record)
        self._walks = {
            source.part.pending[0]: BatchWalk(self._maps[source.part.pending[0]], count=WALK, remove=False)
            for source in sources
            if source.part.pending[0]
        }
        self._pending = {source.part.pending[0]: source.part.pending[1:] for source in sources if source.part.pending[0]}

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes every descriptor; taps that still hold the program keep it until their sockets close. Safe twice."""
        for transport in self.transports.values():
            transport.close()
        while self._fds:
            os.close(self._fds.pop())

    # -- counters ------------------------------------------------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """Kernel counters by name, summed over CPUs; a source's own carry its counter map's prefix (`http_opened`)."""
        found: dict[str, int] = {}
        for table, names in self._counter_names.items():
            value = self._maps[table].get(b"\0" * 4) or b""
            words = np.frombuffer(value, "<u8").reshape(self._cpus, -1)[:, : len(names)].sum(axis=0)
            prefix = "" if table == "counters" else table.removesuffix("counters")
            found |= {f"{prefix}{name}": int(word) for name, word in zip(names, words, strict=True)}
        return found

    def tap_counters(self, ifindex: int) -> dict[str, int]:
        """What connections at one tap turned out to be, by `TAP_COUNTERS`; zeros for a tap without counters."""
        value = self._maps["taps"].get(struct.pack("=I", ifindex))
        words = struct.unpack(f"={len(TAP_COUNTERS)}Q", value) if value else (0,) * len(TAP_COUNTERS)
        return dict(zip(TAP_COUNTERS, words, strict=True))

    # -- taps ----------------------------------------------------------------------------------------------------------------------------------------

    def attach(self, sock: socket.socket) -> None:
        """Makes the packet program the filter of an AF_PACKET SOCK_DGRAM socket. Raises CaptureError."""
        for name in (ENTRY, GATE):
            try:
                sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, struct.pack("=i", self.program_fds[name]))
                return
            except OSError as error:
                if error.errno == errno.ENOMEM and name == ENTRY:
                    continue
                raise CaptureError(f"the program cannot be attached to a packet socket: {error.strerror}") from error

    def set_tap(self, ifindex: int, domain: int | None = None) -> bool:
        """Gives a tap counters and, if asked, a domain shared with other taps. False: there is no room for it (bpf/limits.h); it is watched all the same."""
        ok = True
        try:
            self._maps["taps"].put(struct.pack("=I", ifindex), bytes(8 * len(TAP_COUNTERS)))
            self._taps.add(ifindex)
        except OSError:
            ok = False
        if domain is not None:
            table = self._maps["domains"]
            slot = struct.pack("=I", ifindex % table.info.max_entries)
            taken = struct.unpack("=II", table.get(slot) or bytes(8))[0]
            if taken not in (0, ifindex):
                return False
            table.put(slot, struct.pack("=II", ifindex, domain))
        return ok

    def forget_tap(self, ifindex: int) -> None:
        """Takes a tap's counters and domain away."""
        self._taps.discard(ifindex)
        self._maps["taps"].remove(struct.pack("=I", ifindex))
        table = self._maps["domains"]
        slot = struct.pack("=I", ifindex % table.info.max_entries)
        if struct.unpack("=II", table.get(slot) or bytes(8))[0] == ifindex:
            table.put(slot, bytes(8))

    # -- what is watched -----------------------------------------------------------------------------------------------------------------------------

    def _write_settings(self) -> None:
        s = self._settings
        self._maps["settings"].put(b"\0" * 4, struct.pack("=IIII", s["only"], self._generation, s["watching"], s["ignoring"]))

    def watch(
        self, *, only: bool, include: Iterable[Network] = (), exclude: Iterable[Network] = (), neutral: Iterable[Network] = ()
    ) -> None:
        """Watches everything, or (`only`) connections with an endpoint in `include`; never those with one in `exclude`. The longest prefix of an address counts.

        `neutral` are as if in neither list, though a larger network of theirs is.
        Connections that were left alone are asked again. Raises CaptureError when there are more networks than the map holds.
        """
        wanted: dict[bytes, bytes] = {}
        for networks, verdict in ((include, 1), (neutral, 0), (exclude, 2)):
            for network in networks:
                parsed = ipaddress.ip_network(network, strict=False)
                bits = parsed.prefixlen + (96 if parsed.version == 4 else 0)
                wanted[struct.pack("=I", bits) + packed(parsed.network_address)] = struct.pack("=I", verdict)
        table = self._maps["watched"]
        if len(wanted) > table.info.max_entries:
            raise CaptureError(
                f"capture.addresses: {len(wanted)} networks are more than the {table.info.max_entries} that fit; name larger networks"
            )
        for key in self._prefixes - wanted.keys():
            table.remove(key)
        for key, value in wanted.items():
            table.put(key, value)
        self._prefixes = set(wanted)
        self._settings |= {"only": int(only), "watching": int(only or bool(wanted))}
        self._generation += 1
        self._write_settings()

    @staticmethod
    def _tuple(local: tuple[str, int], remote: tuple[str, int]) -> bytes:
        return packed(local[0]) + packed(remote[0]) + struct.pack("=HHI", local[1], remote[1], 0)

    def ignore(self, local: tuple[str, int], remote: tuple[str, int]) -> None:
        """Never reports the connection between these (address, port) pairs. To be called before it is opened. Raises CaptureError when 1,024 are ignored already."""
        try:
            self._maps["ignored"].put(self._tuple(local, remote), struct.pack("=I", 1))
        except OSError as error:
            raise CaptureError(f"the agent's own connection to {remote[0]}:{remote[1]} cannot be left out: {error.strerror}") from error
        if not self._settings["ignoring"]:
            self._settings["ignoring"] = 1
            self._write_settings()

    def unignore(self, local: tuple[str, int], remote: tuple[str, int]) -> None:
        """Forgets a connection that was ignored. From any thread."""
        self._maps["ignored"].remove(self._tuple(local, remote))

    # -- the rest ------------------------------------------------------------------------------------------------------------------------------------

    def open_requests(self) -> OpenRequests:
        """Walks the pending requests of all sources."""
        count, oldest = 0, 0
        for name in self._walks:
            start_at = self._pending[name][1]
            for waiting in self._waiting(name):
                starts = waiting[:, start_at : start_at + 8].copy().view("<u8").ravel()
                count += len(starts)
                first = int(starts.min())
                oldest = min(oldest, first) if oldest else first
        return OpenRequests(count, oldest)

    def open_records(self, part: KernelPart, record: np.dtype[np.void]) -> np.ndarray[Any, np.dtype[np.void]]:
        """What is known of the pending requests of one source, as records of its own; what has not come is 0 in them."""
        # A record begins with the start of its request.
        name, _, at = part.pending
        found = [waiting[:, at : at + record.itemsize].copy() for waiting in self._waiting(name)]
        whole = np.concatenate(found) if found else np.zeros((0, record.itemsize), np.uint8)
        return whole.view(record).ravel()

    def _waiting(self, name: str) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        """The entries of a map of pending requests that still are pending, as bytes, some at a time."""
        walk, sent_at, size = self._walks[name], self._pending[name][0], self._maps[name].info.value_size
        walk.restart()
        over = False
        while not over:
            entries, over = walk.step()
            values = np.frombuffer(walk.values.raw, np.uint8, entries * size).reshape(entries, size)
            waiting = values[values[:, sent_at] == 0]
            if len(waiting):
                yield waiting

    def test_run(self, frame: bytes, *, time_ns: int = 0, ifindex: int = 0) -> None:
        """Runs the programs on one frame (Ethernet header and network packet, 14 to about 3,700 bytes). `time_ns`: the time its records get, 0: now."""
        self._run.run(frame, cb=time_ns, ifindex=ifindex)

    def measure(self, frame: bytes, *, repeat: int = 1, time_ns: int = 0) -> int:
        """Nanoseconds of one run, averaged over `repeat` runs, the kernel's harness included."""
        return self._run.run(frame, cb=time_ns, repeat=repeat)

    def map(self, name: str) -> Map:
        """One map, for benchmarks and tests."""
        return self._maps[name]
