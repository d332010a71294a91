"""Cost of the kernel programs per segment, by BPF_PROG_TEST_RUN, less that of an empty program. The shipped programs with default options.

    scripts/bench kernel_cost        or: python benchmarks/kernel_cost.py [--rounds N] [--define NAME=VALUE]

hot: the same segment many times in a row. What a segment changes (state of the connection and of its open request) is put back before each run by
a small program in front (rewind.c), whose own cost is measured with the empty program behind it and taken off. The record goes to the ring, every
counter counts. Of a round's batches the fastest is taken, since neighbours on the machine only ever add. cold: the segment comes alone, in a system
call of its own, of a connection that was prepared just before; less the empty program, run likewise. of many: of 400 connections in turn, so that
their state is in no near cache either. less not TCP: the hot figure, less a datagram through the same program.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe, median
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.kernel.assemble import ENTRY, GATE, KernelPart, KernelSource
from otel_ebpf_receiver.kernel.bytecode import Cache
from otel_ebpf_receiver.kernel.loader import BuildOptions, load
from otel_ebpf_receiver.kernel.programs import Programs
from otel_ebpf_receiver.kernel.syscall import TestRun
from otel_ebpf_receiver.sources.http.kernel import kernel_source
from tests.wire.flow import Ends
from tests.wire.packets import ACK, ETHERTYPE_IPV4, PSH, SYN, UDP, ethernet, ipv4, udp

CLIENT, SERVER = 0, 1
BENCH = KernelPart(
    "bench",
    (str(Path(__file__).with_name("rewind.c")),),
    programs=("bench_empty", "bench_save", "bench_rewind", "bench_read", "bench_find"),
)
ENTRY_SLOT, EMPTY_SLOT = 15, 14
REPEAT, BATCHES = 250, 20
COLD, WIDE = 400, 400
CHUNKS = 14


def head(start: str, size: int, *headers: str) -> bytes:
    """A head of exactly `size` bytes with what clients and servers usually send."""
    lines = [start, "Host: shop.default.svc.cluster.local", "User-Agent: Mozilla/5.0 (X11; Linux x86_64)", *headers]
    if start.startswith("HTTP/"):
        lines = [start, "Server: nginx/1.22.1", "Date: Tue, 24 Nov 2026 17:00:00 GMT", *headers]
    while len("\r\n".join(lines)) < size - 70:
        lines.append(f"X-Request-{len(lines)}: {'v' * 40}")
    text = "\r\n".join([*lines, "X-Padding: "])
    return text.ljust(size - 4, "y").encode() + b"\r\n\r\n"


TRACEPARENT = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GET = head("GET /api/v1/users/123?x=1 HTTP/1.1", 400)
GET_TRACED = head("GET /api/v1/users/123?x=1 HTTP/1.1", 400, TRACEPARENT)
OK = head("HTTP/1.1 200 OK", 200, "Content-Type: text/plain", "Content-Length: 0")
POST = head("POST /api/v1/users HTTP/1.1", 400, "Content-Length: 2000000000")
CHUNKED = head("HTTP/1.1 200 OK", 200, "Transfer-Encoding: chunked")
PIECES = b"".join(b"5a\r\n" + b"x" * 90 + b"\r\n" for _ in range(CHUNKS))
TLS = b"\x16\x03\x01" + bytes(500)


class Connection:
    """One connection whose segments come one after the other; makes frames, runs nothing."""

    _ports = itertools.count(1)

    def __init__(self) -> None:
        number = next(self._ports)
        self._ends = Ends(client=(f"10.0.{number >> 14}.1", 20000 + (number & 16383)))
        self._next = [1000 + number, 500000 + number]

    def frame(self, side: int, payload: bytes, flags: int = PSH | ACK) -> bytes:
        """The next segment of a side."""
        frame = self._ends.frame(side, self._next[side], self._next[1 - side], flags, payload)
        self._next[side] += len(payload) + bool(flags & SYN)
        return frame

    def handshake(self) -> list[bytes]:
        return [self.frame(CLIENT, b"", SYN), self.frame(SERVER, b"", SYN | ACK), self.frame(CLIENT, b"", ACK)]


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of segment: what passes before it (after a few whole exchanges, unless it is not HTTP), it itself, and what it may cost."""

    name: str
    before: Sequence[tuple[int, bytes]]
    side: int
    payload: bytes
    must_ns: int | None = None
    units: int = 1
    exchanges: int = 5
    repeats_itself: bool = False


ROWS = (
    Row("bare ACK", (), CLIENT, b"", 10, repeats_itself=True),
    Row("opaque segment, 1400 bytes", ((CLIENT, TLS),), SERVER, bytes(1400), 60, exchanges=0, repeats_itself=True),
    Row("segment in a body, 1400 bytes", ((CLIENT, POST),), CLIENT, bytes(1400), 70),
    Row("request head, 400 bytes", (), CLIENT, GET, 550),
    Row("response head, 200 bytes, with its record", ((CLIENT, GET),), SERVER, OK, 500),
    Row(f"chunk of 90 bytes ({CHUNKS} a segment)", ((CLIENT, GET), (SERVER, CHUNKED)), SERVER, PIECES, 35, units=CHUNKS),
    Row("request head, 400 bytes, with traceparent", (), CLIENT, GET_TRACED),
    Row("first request of a connection, 400 bytes", (), CLIENT, GET, exchanges=0),
)
FLOORS = (("to count and read 40 bytes of headers", "bench_read"), ("and to find the connection", "bench_find"))
"""What a program of this kind takes at least, however little it does: helpers return through a thunk on many machines."""
NOT_TCP = "a datagram: its headers read and counted"


class Bench:
    """The loaded programs and the ways to run one frame."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self._state = programs.map("bench_state")
        self._fds = programs.program_fds
        for slot, name in ((ENTRY_SLOT, ENTRY), (EMPTY_SLOT, "bench_empty")):
            programs.map("programs").put(struct.pack("=I", slot), struct.pack("=I", self._fds[name]))
        programs.set_tap(1)
        self._runs = {name: TestRun(fd) for name, fd in self._fds.items()}

    def feed(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            self.programs.test_run(frame)

    def drain(self) -> int:
        return len(self.programs.transports["http"].drain())

    def save(self, keys_before: set[bytes], request: int) -> None:
        """Keeps the state of the only connection that is new."""
        (key,) = set(self.programs.map("flows").keys()) - keys_before
        self._key, self._slot = key, request % 4
        self._aim(0)
        self._runs["bench_save"].run(bytes(64))

    def _aim(self, target: int) -> None:
        kept = self._state.get(bytes(4)) or b""
        self._state.put(bytes(4), self._key + struct.pack("=II", self._slot, target) + kept[len(self._key) + 8 :])

    def rewound(self, frame: bytes, slot: int) -> float:
        """Nanoseconds of one run behind `bench_rewind`."""
        self._aim(slot)
        return self.batches(lambda: self._runs["bench_rewind"].run(frame, repeat=REPEAT))

    def direct(self, frame: bytes, program: str) -> float:
        return self.batches(lambda: self._runs[program].run(frame, repeat=REPEAT))

    def once(self, frame: bytes, program: str = ENTRY) -> float:
        return self._runs[program].run(frame)

    def batches(self, run: Callable[[], int]) -> float:
        found = []
        for _ in range(BATCHES):
            found.append(run())
            self.drain()
        return min(found)


def prepared(row: Row) -> tuple[list[bytes], Connection]:
    """All frames before the one that is measured."""
    connection = Connection()
    frames = connection.handshake()
    for _ in range(row.exchanges):
        frames += [connection.frame(CLIENT, GET), connection.frame(SERVER, OK)]
    return frames + [connection.frame(side, payload) for side, payload in row.before], connection


def hot(bench: Bench, row: Row) -> float:
    """Nanoseconds of one unit, less what is not ours."""
    before, connection = prepared(row)
    known = set(bench.programs.map("flows").keys())
    bench.feed(before)
    frame = connection.frame(row.side, row.payload, PSH | ACK if row.payload else ACK)
    if row.repeats_itself:
        return (bench.direct(frame, ENTRY) - bench.direct(frame, "bench_empty")) / row.units
    bench.save(known, row.exchanges)
    whole = bench.rewound(frame, ENTRY_SLOT)
    return (whole - bench.rewound(frame, EMPTY_SLOT)) / row.units


def floors(bench: Bench) -> dict[str, float]:
    """Nanoseconds of each of FLOORS, whose connection is an opaque one, and of NOT_TCP: a datagram of 64 bytes through the whole program."""
    before, connection = prepared(ROWS[1])
    known = set(bench.programs.map("flows").keys())
    bench.feed(before)
    bench.save(known, 0)
    frame = connection.frame(SERVER, bytes(1400))
    datagram = ethernet(ipv4("10.0.0.1", "10.0.0.2", udp(9, 9, bytes(64)), protocol=UDP), ETHERTYPE_IPV4)
    runs = {name: (frame, program) for name, program in FLOORS} | {NOT_TCP: (datagram, ENTRY)}
    return {name: bench.direct(what, program) - bench.direct(what, "bench_empty") for name, (what, program) in runs.items()}


def cold(bench: Bench, row: Row, width: int) -> float:
    """The same for one segment alone in its system call, of each of `width` connections in turn."""
    found, empty = [], []
    for _ in range(COLD // width):
        group = [prepared(row) for _ in range(width)]
        for before, _ in group:
            bench.feed(before)
        bench.drain()
        for _, connection in group:
            frame = connection.frame(row.side, row.payload, PSH | ACK if row.payload else ACK)
            empty.append(bench.once(frame, "bench_empty"))
            found.append(bench.once(frame))
    bench.drain()
    return (median(found) - median(empty)) / row.units


def shipped_source() -> tuple[KernelSource, BuildOptions]:
    """What the agent builds from a configuration without a word in it."""
    capture = Config().capture
    return kernel_source(pending=capture.pending), BuildOptions(capture.transport, capture.ring_bytes, defines={"FLOWS": capture.flows})


def same_instructions(folder: Path) -> bool:
    """Whether all programs that two compilations share are the same, but for the descriptors of maps.

    The gate is left out: all it holds is the entry's place among the programs, of which there are more here.
    """

    def codes(path: Path) -> dict[str, bytes]:
        found = {}
        for name, one in json.loads(path.read_text())["programs"].items():
            code = bytearray(base64.b64decode(one["code"]))
            for index, _ in one["maps"]:
                code[index * 8 + 4 : index * 8 + 8] = bytes(4)
            found[name] = bytes(code)
        return found

    first, second = (codes(path) for path in folder.glob("*.json"))
    return all(first[name] == second[name] for name in (first.keys() & second.keys()) - {GATE})


def load_bench(defines: dict[str, int | str]) -> Iterator[Any]:
    """The programs with the two of rewind.c beside them; says whether they are those that ship."""
    source, options = shipped_source()
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder))
        load([source], options, cache=cache).close()
        options = BuildOptions(options.transport, options.ring_bytes, defines={**options.defines, **defines})
        with load([source, KernelSource(BENCH, lambda: np.dtype("V8"))], options, cache=cache) as programs:
            print(f"programs: bcc {programs.bcc_version}; instructions as shipped: {'yes' if same_instructions(Path(folder)) else 'NO'}")
            yield programs


def show(found: dict[str, list[tuple[float, float, float]]], not_tcp_ns: Sequence[float]) -> None:
    rounds = len(found[ROWS[0].name])
    print(f"\nns, less the empty program; medians of {rounds} alternated rounds (hot: least to greatest)")
    print(f"{'':44}{'hot':>7} {'must be':>8} {'ratio':>6}   {'':15}{'cold':>7} {'of many':>8}  less not TCP")
    for row in ROWS:
        hots, colds, many = (sorted(column) for column in zip(*found[row.name], strict=True))
        less = [one - other / row.units for (one, _, _), other in zip(found[row.name], not_tcp_ns, strict=True)]
        must = f"{row.must_ns:8} {median(hots) / row.must_ns:6.2f}" if row.must_ns else " " * 15
        ends = f"{hots[0]:.0f} to {hots[-1]:.0f}"
        print(f"{row.name:44}{median(hots):7.1f} {must}   {ends:15}{median(colds):7.0f} {median(many):8.0f}  {median(less):12.1f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument(
        "--define", action="append", default=[], metavar="NAME=VALUE", help="build with another limit, to see what costs"
    )
    options = arguments.parse_args()
    print(describe())
    for programs in load_bench(dict(one.split("=", 1) for one in options.define)):
        bench = Bench(programs)
        found: dict[str, list[tuple[float, float, float]]] = {row.name: [] for row in ROWS}
        least: list[dict[str, float]] = []
        for _ in range(options.rounds):
            for row in ROWS:
                found[row.name].append((hot(bench, row), cold(bench, row, 1), cold(bench, row, WIDE)))
            least.append(floors(bench))
        columns = {name: [one[name] for one in least] for name in least[0]}
        show(found, columns[NOT_TCP])
        for name, column in columns.items():
            print(f"{name:44}{median(column):7.1f} {'':15}   {min(column):.0f} to {max(column):.0f}")
        counters = programs.counters()
        print(f"records {counters['http_sent']:,}, lost {counters['http_lost']}; packets {counters['packets']:,}")


if __name__ == "__main__":
    main()
