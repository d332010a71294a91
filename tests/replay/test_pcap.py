"""Reading pcap files: every variant, and every way in which one can be broken."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from otel_ebpf_receiver.errors import CaptureError
from otel_ebpf_receiver.kernel.pcap import MAX_BLOCK_BYTES, Captured, read
from tests.replay.capture_files import Kept, pcap

SECOND = 1_000_000_000
PACKETS = [
    Kept(1_700_000_000 * SECOND + 123_456_000, b"first packet"),
    Kept(1_700_000_001 * SECOND + 999_999_000, b"", 60),
    Kept(1_700_000_000 * SECOND + 5_000, bytes(range(256)) * 5, 64_000),
]


def expected(link_type: int = 1) -> list[Captured]:
    """What the reader must make of PACKETS."""
    return [Captured(link_type, p.time_unix_ns, 0, p.data, p.wire) for p in PACKETS]


def read_all(path: Path) -> tuple[list[Captured], CaptureError | None]:
    """All packets of a file, and why there were no more."""
    got = []
    try:
        for packet in read(path):
            got.append(packet)
    except CaptureError as error:
        return got, error
    return got, None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34])
def test_every_kind_of_pcap_is_read(tmp_path: Path, order: str, magic: int) -> None:
    """Both byte orders, micro- and nanoseconds and the modified format give the same packets."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(PACKETS, order=order, magic=magic, link_type=113))

    got = read_all(path)

    assert got == (expected(113), None)


def test_nanoseconds_are_kept(tmp_path: Path) -> None:
    """A nanosecond file keeps its last digit."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([Kept(SECOND + 1, b"x")], magic=0xA1B23C4D))

    got, _ = read_all(path)

    assert got[0].time_unix_ns == SECOND + 1


def test_link_type_is_read_without_check_sequence_length(tmp_path: Path) -> None:
    """The upper bits of the link type field say the length of the frame check sequence and are no part of the type."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(PACKETS, link_type=0x4400_0001))

    got, error = read_all(path)

    assert (got, error) == (expected(1), None)


def test_packed_file_is_read(tmp_path: Path) -> None:
    """A file packed by gzip gives the same packets."""
    path = tmp_path / "a.pcap.gz"
    path.write_bytes(gzip.compress(pcap(PACKETS)))

    got = read_all(path)

    assert got == (expected(), None)


def test_file_cut_at_every_byte_gives_what_is_whole(tmp_path: Path) -> None:
    """Wherever the file ends, all packets that are whole come first; only a cut between two packets is a clean end."""
    whole = pcap(PACKETS)
    ends = [24]
    for packet in PACKETS:
        ends.append(ends[-1] + 16 + len(packet.data))
    path = tmp_path / "a.pcap"

    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        got, error = read_all(path)

        complete = sum(end <= size for end in ends[1:])
        assert got == expected()[:complete]
        assert (error is None) == (size in ends)
        assert error is None or repr(str(path)) in str(error)


def test_packed_file_cut_at_every_byte_never_crashes(tmp_path: Path) -> None:
    """A packed file that breaks off gives a prefix of its packets and an error."""
    packed = gzip.compress(pcap(PACKETS))
    path = tmp_path / "a.pcap.gz"

    for size in range(len(packed)):
        path.write_bytes(packed[:size])
        got, error = read_all(path)

        assert got == expected()[: len(got)]
        assert error is not None


def test_error_names_file_place_and_reason(tmp_path: Path) -> None:
    """Whoever reads the message knows which file broke off, where, and how much is missing."""
    path = tmp_path / "cut.pcap"
    path.write_bytes(pcap(PACKETS)[:-100])

    _, error = read_all(path)

    start = 24 + 2 * 16 + len(PACKETS[0].data)
    message = f"capture file '{path}' is broken at byte {start}: the file ends inside a packet: 1180 of 1280 bytes are there"
    assert str(error).startswith(message)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "ends inside a magic number: 0 of 4"),
        (b"GET / HTTP/1.1\r\n\r\n" * 3, "neither pcap nor pcapng begins with 47 45 54 20"),
        (pcap([])[:4] + b"\x03" + pcap([])[5:], "pcap version 3.4"),
        (pcap([]) + b"\xff" * 16, f"a packet of 4294967295 bytes, more than {MAX_BLOCK_BYTES}"),
        (b"\x1f\x8b" + b"no gzip at all", "broken at unpacked byte 0"),
    ],
)
def test_what_is_no_capture_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """An empty file, text, another version, a length beyond all measure and a false gzip are refused with the reason."""
    path = tmp_path / "a.pcap"
    path.write_bytes(content)

    got, error = read_all(path)

    assert got == []
    assert reason in str(error)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    """A path that cannot be opened is told apart from a broken file."""
    missing, folder = tmp_path / "missing.pcap", tmp_path

    errors = [read_all(missing)[1], read_all(folder)[1]]

    assert str(errors[0]) == f"capture file '{missing}' cannot be opened: No such file or directory"
    assert str(errors[1]) == f"capture file '{folder}' cannot be opened: Is a directory"


def test_length_on_the_wire_is_at_least_what_was_captured(tmp_path: Path) -> None:
    """A writer that says less than it kept does not make a packet shorter than its bytes."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([Kept(0, b"four", 2)]))

    got, _ = read_all(path)

    assert got == [Captured(1, 0, 0, b"four", 4)]
