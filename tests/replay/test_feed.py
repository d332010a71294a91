"""What a replay does with the frames of a file: order, times, draining, counts, and the end of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_ebpf_receiver.kernel.replay import DRAIN_BYTES, DRAIN_FRAMES, Transport, not_whole, replay
from tests.replay.capture_files import Kept, Ng, pcap
from tests.replay.reassembly import Nothing, Reassembly
from tests.wire.packets import ACK, ETHERTYPE_ARP, ETHERTYPE_IPV4, ethernet, ipv4, tcp

MOMENT = 1_700_000_000_000_000_000


class Counting:
    """Takes frames, makes a record of each, and notes how many lay there at most."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.most = 0
        self.bytes = 0
        self.most_bytes = 0
        self.transports: Mapping[str, Transport] = {"http": self, "dummy": Nothing()}

    def test_run(self, frame: bytes, *, time_ns: int = 0, ifindex: int = 0) -> None:
        """A record that holds the frame's time."""
        self.waiting.append(time_ns)
        self.bytes += len(frame)
        self.most = max(self.most, len(self.waiting))
        self.most_bytes = max(self.most_bytes, self.bytes)

    def drain(self) -> NDArray[np.void]:
        """All records since the last time."""
        batch = np.array([(time,) for time in self.waiting], dtype=[("time_ns", "<u8")])
        self.waiting, self.bytes = [], 0
        return batch

    def counters(self) -> dict[str, int]:
        """Some records were lost, once frames came."""
        return {"packets": 9, "http_lost": 3 if self.most else 0}

    def open_requests(self) -> Nothing:
        """Two are open."""
        return Nothing(2)


def segment(seq: int, payload: bytes = b"") -> bytes:
    """An Ethernet frame with a TCP segment."""
    return ethernet(ipv4("10.0.0.1", "10.0.0.2", tcp(1000, 80, seq, 1, ACK, payload)), ETHERTYPE_IPV4)


def test_records_come_in_order_with_the_times_of_the_capture(tmp_path: Path) -> None:
    """Frames go in as they stand in the file, whatever their times, and each batch is handed on in that order, never an empty one."""
    times = [MOMENT + 5000, MOMENT, MOMENT + 9000, 0]
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([Kept(time, segment(1)) for time in times]))
    got: list[tuple[str, list[int]]] = []

    result = replay(path, Counting(), lambda source, batch: got.append((source, batch["time_ns"].tolist())))

    assert got == [("http", [MOMENT + 5000, MOMENT, MOMENT + 9000, 1])]
    assert (result.frames, result.records, result.lost, result.open, result.error) == (4, 4, 3, 2, None)


@pytest.mark.parametrize("payload_bytes", [0, 1400, 60_000])
def test_records_are_drained_before_a_ring_can_be_full(tmp_path: Path, payload_bytes: int) -> None:
    """Between two drains lie no more frames and no more bytes than stated, however large the frames are."""
    programs = Counting()
    count = 5000 if payload_bytes == 0 else 400
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([Kept(MOMENT, segment(1, bytes(payload_bytes)))] * count))
    batches: list[int] = []

    result = replay(path, programs, lambda _, batch: batches.append(len(batch)))

    assert result.records == sum(batches) >= count
    assert len(batches) > 1
    assert programs.most <= DRAIN_FRAMES
    assert programs.most_bytes < DRAIN_BYTES + 3712


def test_every_frame_is_counted_by_what_it_is(tmp_path: Path) -> None:
    """Frames that are not IP, too short, split, cut short or of an unknown link type are each counted, and all known ones are fed."""
    ng = Ng()
    long = segment(1, bytes(8000))
    path = tmp_path / "a.pcapng"
    path.write_bytes(
        ng.section()
        + ng.interface(1)
        + ng.interface(127)
        + ng.enhanced(Kept(MOMENT, segment(1)))
        + ng.enhanced(Kept(MOMENT, ethernet(b"arp", ETHERTYPE_ARP)))
        + ng.enhanced(Kept(MOMENT, b"tiny"))
        + ng.enhanced(Kept(MOMENT, long))
        + ng.enhanced(Kept(MOMENT, segment(8001, bytes(1000))[:64], 1054))
        + ng.enhanced(Kept(MOMENT, b"radio"), interface=1)
    )
    programs = Reassembly()

    result = replay(path, programs, lambda *_: None)

    assert (result.frames, result.not_ip, result.split, result.truncated, dict(result.unknown)) == (6, 2, 1, 1, {127: 1})
    assert result.error is None
    assert [len(frame) for frame in programs.frames] == [54, 28, 28, 3712, 3712, 54 + 8000 - 2 * 3658, 64]
    assert result.summary() == (
        "6 frames (2 not IP, 1 split, 1 truncated, 1 left out: link type 127 is not known), 0 exchanges, 0 open at the end, 0 records lost"
    )


def test_what_is_not_whole_goes_by_the_kernels_own_names() -> None:
    """Counters of what was given up and why, those that are not zero, and requests that nothing else accounts for; of a good capture none."""
    good = {"packets": 99, "blind_reset": 4, "holes": 2, "http_opened": 9, "http_answered": 7, "http_closed": 1, "http_resynchronised": 1}
    bad = {"no_flow": 1, "http_opened": 30, "http_given_up": 2, "http_unpaired": 3, "http_resync_gap": 4, "http_resync_syntax": 0}

    assert not_whole(good, 1) == {}
    assert not_whole(good | bad, 1) == {"no_flow": 1, "http_given_up": 2, "http_unpaired": 3, "http_resync_gap": 4, "evicted": 19}


def test_file_of_unknown_link_types_only_is_an_error(tmp_path: Path) -> None:
    """Where nothing could be read, the error names the link types."""
    ng = Ng()
    path = tmp_path / "a.pcapng"
    frames = ng.enhanced(Kept(1, b"a")) + ng.enhanced(Kept(2, b"b"), interface=1)
    path.write_bytes(ng.section() + ng.interface(127) + ng.interface(105) + frames)

    result = replay(path, Reassembly(), lambda *_: None)

    assert result.frames == 2
    assert "all frames are of link type 105, 127" in str(result.error)


def test_file_without_frames_is_no_error(tmp_path: Path) -> None:
    """An empty capture is a good one."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([], link_type=127))

    result = replay(path, Reassembly(), lambda *_: None)

    assert (result.frames, result.error) == (0, None)


def test_file_cut_at_every_byte_hands_on_all_before(tmp_path: Path) -> None:
    """Wherever the file ends, the records of all whole frames were handed on before the error is told."""
    whole = pcap([Kept(MOMENT + n * 1000, segment(1 + n, b"x")) for n in range(3)])
    path = tmp_path / "a.pcap"

    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        got: list[int] = []
        result = replay(path, Counting(), lambda _, batch, got=got: got.extend(batch["time_ns"].tolist()))  # type: ignore[misc]

        complete = max(0, (size - 24) // (16 + 55))
        assert got == [MOMENT + n * 1000 for n in range(complete)]
        assert result.frames == result.records == complete
        assert (result.error is None) == (size == 24 + complete * 71)


def test_closed_output_stops_the_replay(tmp_path: Path) -> None:
    """What `emit` raises ends the replay at once and is not swallowed: whoever owns the output knows what it means."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([Kept(MOMENT, segment(1))] * (DRAIN_FRAMES + 10)))
    programs = Counting()

    def closed(source: str, batch: NDArray[np.void]) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        replay(path, programs, closed)

    assert programs.most == DRAIN_FRAMES
