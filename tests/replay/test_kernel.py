"""Capture files through the kernel programs themselves, beside what tshark finds in the same files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_ebpf_receiver.kernel import pcap
from otel_ebpf_receiver.kernel.loader import load
from otel_ebpf_receiver.kernel.programs import Programs
from otel_ebpf_receiver.kernel.replay import Replayed, network_packet, replay
from otel_ebpf_receiver.kernel.syscall import BatchWalk
from otel_ebpf_receiver.sources.http.kernel import kernel_source
from otel_ebpf_receiver.sources.http.record import Flag
from tests.replay import capture_files, live
from tests.wire.packets import ACK, ETHERTYPE_IPV4, FIN, PSH, RST, SYN, ethernet, ipv4, tcp

MOMENT = 1_700_000_000_000_000_000


class Seen(NamedTuple):
    """An exchange, by what both the kernel and tshark tell of it; `took_us` is from the end of the request to the end of the response.

    Target and time are left out after a `100 Continue`: tshark takes that for the answer.
    """

    client_port: int
    target: str
    status: int
    took_us: int


@pytest.fixture(scope="module")
def loaded() -> Iterator[Programs]:
    """The programs, loaded once."""
    with load([kernel_source()]) as programs:
        yield programs


@pytest.fixture
def programs(loaded: Programs) -> Programs:
    """The programs as after their start: connections of another test's file are forgotten."""
    forget(loaded)
    return loaded


def forget(programs: Programs) -> None:
    """Empties what is remembered of connections and requests."""
    for name in ("flows", "http_pending"):
        walk = BatchWalk(programs.map(name), count=256, remove=True)
        over = False
        while not over:
            _, over = walk.step()


def replay_all(path: Path, programs: Programs) -> tuple[Replayed, NDArray[np.void]]:
    """The result and all records."""
    batches: list[NDArray[np.void]] = []
    result = replay(path, programs, lambda _, batch: batches.append(batch))
    return result, np.concatenate(batches) if batches else np.empty(0, kernel_source().record)


def seen(records: NDArray[np.void]) -> list[Seen]:
    """What the records tell."""
    found = []
    for record in records:
        target, took_ns = target_of(record), int(record["response_end_ns"]) - int(record["request_end_ns"])
        told = ("", 0) if record["flags"] & Flag.INTERIM else (target, round(took_ns / 1000))
        found.append(Seen(int(record["client_port"]), told[0], int(record["status"]), told[1]))
    return found


def target_of(record: np.void) -> str:
    """The request's target."""
    text: bytes = record["line"]
    return text.split(b" ", 1)[1].decode()


def tshark(path: Path) -> list[Seen]:
    """What tshark tells of the same file: final responses with the target of their request."""
    fields = ("tcp.dstport", "http.response_for.uri", "http.response.code", "http.time")
    options = [part for field in fields for part in ("-e", field)]
    rows = live.run("tshark", "-r", path, "-Y", "http.response.code >= 200", "-T", "fields", *options).splitlines()
    found = []
    for port, uri, code, time in (row.split("\t") for row in rows):
        found.append(Seen(int(port), "/" + uri.split("/", 3)[3] if uri else "", int(code), round(float(time or 0) * 1e6)))
    return found


@pytest.mark.parametrize("name", ["veth.pcap", "nano.pcap", "cooked.pcap", "cooked2.pcap", "veth.pcapng", "lo.pcap"])
def test_exchanges_are_those_that_tshark_finds(captures: dict[str, Path], programs: Programs, name: str) -> None:
    """Real traffic in every kind of capture: the same exchanges with the same statuses and times as tshark's own dissection."""
    result, records = replay_all(captures[name], programs)

    assert seen(records) == tshark(captures[name])
    assert len(records) == result.records == 20
    assert (result.open, result.lost, result.error) == (0, 0, None)


def test_sizes_are_those_that_nginx_sent(captures: dict[str, Path], programs: Programs) -> None:
    """Bodies of frames that were split for the test run add up to the files' sizes."""
    _, records = replay_all(captures["veth.pcap"], programs)

    sizes = {target_of(record): (int(record["request_body"]), int(record["response_body"])) for record in records}
    assert sizes["/medium"] == (0, live.SIZES["medium"])
    assert sizes["/answer"] == (9002, 6)
    assert sizes["/answer?continued"] == (90_002, 6)
    assert sorted(records["response_body"].tolist())[-2:] == [live.SIZES["large"]] * 2


def test_times_are_those_of_the_capture(captures: dict[str, Path], programs: Programs) -> None:
    """The first request begins, and its answer ends, when the capture says that these frames came, to the nanosecond."""
    _, records = replay_all(captures["nano.pcap"], programs)

    by_start = {p.time_unix_ns: p for p in pcap.read(captures["nano.pcap"])}
    for record in records:
        assert b" HTTP/1." in by_start[int(record["request_start_ns"])].data
        assert b"HTTP/1.1 " in by_start[int(record["response_start_ns"])].data
        assert int(record["response_end_ns"]) in by_start
        assert int(record["request_end_ns"]) in by_start


@pytest.mark.parametrize("link_type", [0, 12, 101, 108, 113, 276])
def test_every_link_type_gives_the_same_exchanges(captures: dict[str, Path], programs: Programs, tmp_path: Path, link_type: int) -> None:
    """One conversation, its frames put under every kind of link header, gives one set of records."""
    kept = []
    for p in pcap.read(captures["veth.pcap"]):
        ethertype, packet = network_packet(p.link_type, p.data) or (0, b"")
        family = 2 if ethertype == ETHERTYPE_IPV4 else 30
        front = {
            0: family.to_bytes(4, "little"),
            108: family.to_bytes(4),
            113: bytes(14) + ethertype.to_bytes(2),
            276: ethertype.to_bytes(2) + bytes(18),
        }.get(link_type, b"")
        kept.append(capture_files.Kept(p.time_unix_ns, front + packet))
    path = tmp_path / "a.pcap"
    path.write_bytes(capture_files.pcap(kept, link_type=link_type))
    _, expected = replay_all(captures["veth.pcap"], programs)
    forget(programs)

    result, records = replay_all(path, programs)

    assert result.error is None
    assert len(records) == 20
    assert (records == expected).all()


def test_bodies_that_a_short_capture_left_out_count_by_length(captures: dict[str, Path], programs: Programs) -> None:
    """With 128 bytes kept of each frame a body counts with its length; where a response's head is cut, size and end are flagged."""
    before = programs.counters()["http_resync_truncated"]

    result, records = replay_all(captures["terse.pcap"], programs)

    got = [(int(r["line"].split(b"/")[1]), int(r["status"]), int(r["response_body"]), Flag(int(r["flags"]))) for r in records]
    uncut = live.TERSE_SIZES.index(7)
    assert got[:uncut] == [(size, 200, size, Flag(0)) for size in live.TERSE_SIZES[:uncut]]
    assert got[uncut] == (7, 200, 0, Flag.UNCERTAIN_END | Flag.UNCERTAIN_SIZE)
    uncut += 1
    assert [(target, status, size) for target, status, size, _ in got[uncut:]] == [(n, 200, n) for n in live.TERSE_SIZES[uncut:]]
    assert all(Flag.RESYNCHRONISED in flags for *_, flags in got[uncut:])
    assert result.truncated > 5
    assert programs.counters()["http_resync_truncated"] > before


def test_every_status_of_a_short_capture_is_reported(programs: Programs, tmp_path: Path) -> None:
    """Each answer's head is cut behind its status line: the next request is an anchor again, and no exchange is lost."""
    kept: list[capture_files.Kept] = []
    seqs = {0: 100, 1: 900}

    def send(side: int, flags: int, payload: bytes) -> None:
        ends, ports = (("10.0.0.1", "10.0.0.2"), (4000, 80)) if side == 0 else (("10.0.0.2", "10.0.0.1"), (80, 4000))
        frame = ethernet(ipv4(*ends, tcp(*ports, seqs[side], seqs[1 - side] if flags & ACK else 0, flags, payload)), ETHERTYPE_IPV4)
        kept.append(capture_files.Kept(MOMENT + 1000 * len(kept), frame[:128], len(frame)))
        seqs[side] += len(payload) + bool(flags & SYN)

    send(0, SYN, b"")
    send(1, SYN | ACK, b"")
    for n in range(20):
        send(0, ACK | PSH, b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n)
        head = b"HTTP/1.1 %d OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 17:00:00 GMT\r\nX: %s\r\nContent-Length: 3000\r\n\r\n" % (
            200 + n,
            b"y" * 100,
        )
        send(1, ACK | PSH, head + bytes(1000))
        send(1, ACK | PSH, bytes(2000))
    path = tmp_path / "a.pcap"
    path.write_bytes(capture_files.pcap(kept))

    result, records = replay_all(path, programs)

    assert [(target_of(r), int(r["status"])) for r in records] == [(f"/{n}", 200 + n) for n in range(20)]
    assert all(Flag.UNCERTAIN_END | Flag.UNCERTAIN_SIZE in Flag(int(r["flags"])) for r in records)
    assert records["response_start_ns"].tolist() == [MOMENT + 1000 * (3 + 3 * n) for n in range(20)]
    assert result.open == 0


def test_short_capture_of_long_heads_reports_nothing_false(captures: dict[str, Path], programs: Programs) -> None:
    """Where heads are cut, what is reported is true, and the losses are counted."""
    before = programs.counters()["http_resync_truncated"]

    _, records = replay_all(captures["short.pcap"], programs)

    assert set(seen(records)) <= set(tshark(captures["veth.pcap"]))
    assert programs.counters()["http_resync_truncated"] > before


def test_big_tcp_counts_the_whole_body(captures: dict[str, Path], programs: Programs) -> None:
    """Frames of up to 190 KiB, cut to 64 KiB by tcpdump, are one answer of the right size."""
    result, records = replay_all(captures["big.pcap"], programs)

    assert [(r["status"], r["response_body"]) for r in records if r["line"].startswith(b"GET /huge")] == [(200, live.SIZES["huge"])]
    assert result.truncated > 0


def conversation() -> list[tuple[bytes, int]]:
    """Frames of a connection with three exchanges and one request that is never answered; with each, how many exchanges are then over."""
    frames: list[tuple[bytes, int]] = []
    seqs = {0: 100, 1: 900}

    def send(side: int, flags: int, payload: bytes, over: int) -> None:
        ends = ("10.0.0.1", "10.0.0.2") if side == 0 else ("10.0.0.2", "10.0.0.1")
        ports = (4000, 80) if side == 0 else (80, 4000)
        segment = tcp(*ports, seqs[side], seqs[1 - side] if flags & ACK else 0, flags, payload)
        frames.append((ethernet(ipv4(*ends, segment), ETHERTYPE_IPV4), over))
        seqs[side] += len(payload) + bool(flags & (SYN | FIN))

    send(0, SYN, b"", 0)
    send(1, SYN | ACK, b"", 0)
    for n in range(3):
        send(0, ACK | PSH, b"GET /%d HTTP/1.1\r\n\r\n" % n, n)
        send(1, ACK | PSH, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo", n)
        send(1, ACK | PSH, b"dy", n + 1)
    send(0, ACK | PSH, b"GET /open HTTP/1.1\r\n\r\n", 3)
    return frames


def test_file_cut_at_every_byte_gives_all_exchanges_before(programs: Programs, tmp_path: Path) -> None:
    """Wherever the file ends, each exchange that was over by then is reported, with its own times, and no other."""
    frames = conversation()
    whole = capture_files.pcap([capture_files.Kept(MOMENT + n * 1000, frame) for n, (frame, _) in enumerate(frames)])
    ends = [24]
    for frame, _ in frames:
        ends.append(ends[-1] + 16 + len(frame))
    path = tmp_path / "a.pcap"

    for size in range(24, len(whole) + 1):
        forget(programs)
        path.write_bytes(whole[:size])
        result, records = replay_all(path, programs)

        complete = sum(end <= size for end in ends[1:])
        over = frames[complete - 1][1] if complete else 0
        assert [target_of(record) for record in records] == [f"/{n}" for n in range(over)]
        assert records["response_end_ns"].tolist() == [MOMENT + (4 + 3 * n) * 1000 for n in range(over)]
        assert (result.error is None) == (size in ends)


def test_open_requests_are_counted_not_invented(programs: Programs, tmp_path: Path) -> None:
    """A request without an answer at the end of the file is said in the summary and makes no record."""
    path = tmp_path / "a.pcap"
    path.write_bytes(capture_files.pcap([capture_files.Kept(MOMENT, frame) for frame, _ in conversation()]))

    result, records = replay_all(path, programs)

    assert [target_of(record) for record in records] == ["/0", "/1", "/2"]
    assert result.open == 1
    assert result.summary() == "12 frames (0 not IP, 0 split, 0 truncated), 3 exchanges, 1 open at the end, 0 records lost"


@pytest.mark.parametrize("flags", [ACK | PSH | FIN, ACK | RST])
def test_end_in_a_split_frame_is_taken_at_its_end(programs: Programs, tmp_path: Path, flags: int) -> None:
    """Of a split frame only the last piece ends the connection: FIN closes the body after all its bytes; a reset keeps the status."""
    frames = [(frame, 0) for frame, _ in conversation()[:3]]
    head = b"HTTP/1.0 200 OK\r\n\r\n"
    asked = len(b"GET /0 HTTP/1.1\r\n\r\n")
    last = tcp(80, 4000, 901, 101 + asked, flags, head + bytes(20_000))
    frames.append((ethernet(ipv4("10.0.0.2", "10.0.0.1", last), ETHERTYPE_IPV4), 0))
    path = tmp_path / "a.pcap"
    path.write_bytes(capture_files.pcap([capture_files.Kept(MOMENT, frame) for frame, _ in frames]))

    result, records = replay_all(path, programs)

    assert result.split == 1
    assert records["status"].tolist() == [200]
    if flags & FIN:
        assert (records["response_body"].tolist(), records["error"].tolist()) == ([20_000], [0])
    else:
        assert records["error"].tolist() == [1]


def test_thousands_of_answers_in_one_file_lose_no_record(programs: Programs, tmp_path: Path) -> None:
    """More exchanges than the ring holds, in frames full of them, all arrive: it is drained in time."""
    rounds, depth = 150, 250
    asked, answered = b"GET / HTTP/1.1\n\n" * depth, b"HTTP/1.1 204 \n\n" * depth
    packets = [
        ipv4("10.0.0.1", "10.0.0.2", tcp(5000, 80, -1, 0, SYN)),
        ipv4("10.0.0.2", "10.0.0.1", tcp(80, 5000, -1, 0, SYN | ACK)),
    ]
    for n in range(rounds):
        packets.append(ipv4("10.0.0.1", "10.0.0.2", tcp(5000, 80, n * len(asked), n * len(answered), ACK | PSH, asked)))
        packets.append(ipv4("10.0.0.2", "10.0.0.1", tcp(80, 5000, n * len(answered), (n + 1) * len(asked), ACK | PSH, answered)))
    path = tmp_path / "a.pcap"
    path.write_bytes(capture_files.pcap([capture_files.Kept(MOMENT, packet) for packet in packets], link_type=101))

    result, records = replay_all(path, programs)

    assert (result.lost, result.open) == (0, 0)
    assert len(records) == rounds * depth
