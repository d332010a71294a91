"""Files that tcpdump, dumpcap, editcap, mergecap and text2pcap wrote: all their forms hold the same streams."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from otel_ebpf_receiver.kernel import pcap
from otel_ebpf_receiver.kernel.replay import network_packet, replay
from tests.replay import capture_files, live
from tests.replay.reassembly import Reassembly

Streams = dict[tuple[str, str], bytes]


def streams(path: Path) -> Streams:
    """What the server sent on each connection, after replaying the file."""
    programs = Reassembly()
    result = replay(path, programs, lambda *_: None)
    assert result.error is None
    return {ends: stream.text() for ends, stream in programs.complete().items() if ends[0].endswith(":80")}


def packets(path: Path) -> list[tuple[int, tuple[int, bytes] | None]]:
    """Times (µs) and network packets of a file."""
    return [(p.time_unix_ns // 1000, network_packet(p.link_type, p.data)) for p in pcap.read(path)]


@pytest.fixture(scope="module")
def truth(captures: dict[str, Path]) -> Streams:
    """Streams of the plain capture, seen to hold what nginx sent."""
    found = streams(captures["veth.pcap"])
    large = live.content(live.SIZES["large"])
    assert sum(large in stream for stream in found.values()) == 2
    assert len(found) == 16
    return found


@pytest.mark.parametrize("name", ["nano.pcap", "cooked.pcap", "cooked2.pcap", "veth.pcapng"])
def test_captures_of_one_conversation_hold_the_same_streams(captures: dict[str, Path], truth: Streams, name: str) -> None:
    """What tcpdump and dumpcap wrote beside each other, on the link and on "any", gives the same bytes."""
    got = streams(captures[name])

    assert got == truth


def test_big_tcp_is_read(captures: dict[str, Path]) -> None:
    """Of frames beyond 64 KiB, whose IP length says 0, tcpdump keeps 64 KiB: the rest is claimed, and nothing is out of place."""
    whole = live.content(live.SIZES["huge"])
    longest = max(p.length for p in pcap.read(captures["big.pcap"]))
    programs = Reassembly()

    result = replay(captures["big.pcap"], programs, lambda *_: None)

    content = max((stream.content for stream in programs.complete().values()), key=len)
    body = content[-len(whole) :]
    assert longest > 65_549
    assert result.error is None
    assert bytes(byte or 0 for byte in content[: -len(whole)]).endswith(b"\r\n\r\n")
    assert 0 < body.count(None) < len(whole)
    assert all(byte in (None, true) for byte, true in zip(body, whole, strict=True))


@pytest.mark.parametrize("name", ["veth.pcap", "lo.pcap"])
def test_large_frames_are_split(captures: dict[str, Path], name: str) -> None:
    """The link carried frames longer than a test run takes, so splitting was needed to get the streams right."""
    programs = Reassembly()

    result = replay(captures[name], programs, lambda *_: None)

    assert programs.complete()
    assert result.split > 10
    assert max(len(p.data) for p in pcap.read(captures[name])) > 20_000


@pytest.mark.parametrize("name", ["short.pcap", "short.pcapng"])
def test_short_captures_claim_what_they_did_not_keep(captures: dict[str, Path], truth: Streams, name: str) -> None:
    """With 128 bytes kept of each frame the streams have the same length, and what is there is the same."""
    programs = Reassembly()
    result = replay(captures[name], programs, lambda *_: None)

    got = {ends: stream.content for ends, stream in programs.complete().items() if ends[0].endswith(":80")}

    assert result.truncated > 10
    assert {ends: len(content) for ends, content in got.items()} == {ends: len(stream) for ends, stream in truth.items()}
    assert all(byte in (None, true) for ends, content in got.items() for byte, true in zip(content, truth[ends], strict=True))


@pytest.mark.parametrize("form", ["pcap", "nsecpcap", "modpcap", "pcapng"])
def test_editcap_writes_nothing_that_is_not_read(captures: dict[str, Path], tmp_path: Path, form: str) -> None:
    """Wireshark's forms of pcap and pcapng give the same packets at the same times."""
    path = tmp_path / "converted"
    live.run("editcap", "-F", form, captures["veth.pcap"], path)

    got = packets(path)

    assert got == packets(captures["veth.pcap"])


def test_merged_and_packed_captures_are_read(captures: dict[str, Path], truth: Streams, tmp_path: Path) -> None:
    """A merge of captures of different link types is a pcapng of several interfaces; gzip around it changes nothing."""
    merged, packed = tmp_path / "merged.pcapng", tmp_path / "merged.pcapng.gz"
    live.run("mergecap", "-F", "pcapng", "-w", merged, captures["lo.pcap"], captures["short.pcap"], captures["cooked2.pcap"])
    packed.write_bytes(gzip.compress(merged.read_bytes()))

    got = packets(merged)

    parts = [packets(captures[name]) for name in ("lo.pcap", "short.pcap", "cooked2.pcap")]
    assert sorted(got, key=repr) == sorted((packet for part in parts for packet in part), key=repr)
    assert packets(packed) == got


@pytest.mark.parametrize(("link_type", "front"), [(101, b""), (12, b""), (0, b"\x02\0\0\0"), (108, b"\0\0\0\x02"), (228, b"")])
def test_text2pcap_of_other_link_types_is_read(captures: dict[str, Path], tmp_path: Path, link_type: int, front: bytes) -> None:
    """Raw IP and loopback frames as text2pcap writes them from a dump give the packets that were dumped."""
    dissected = (network_packet(p.link_type, p.data) for p in pcap.read(captures["veth.pcap"]))
    first = [packet for packet in dissected if packet is not None and packet[0] == 0x0800][:20]
    dump = tmp_path / "dump.txt"
    frames = (front + packet for _, packet in first)
    dump.write_text("".join("".join(f"{at:06x} {f[at : at + 16].hex(' ')}\n" for at in range(0, len(f), 16)) + "\n" for f in frames))
    path = tmp_path / "a.pcap"
    live.run("text2pcap", "-l", str(link_type), dump, path)

    got = [network_packet(p.link_type, p.data) for p in pcap.read(path)]

    assert got == first


def test_tools_read_what_the_writers_of_these_tests_write(tmp_path: Path, captures: dict[str, Path]) -> None:
    """The files that other tests make are files for tshark as well, so they prove something about the reader."""
    kept = [capture_files.Kept(p.time_unix_ns, p.data, p.length) for p in pcap.read(captures["short.pcap"])][:50]
    ng = capture_files.Ng(">")
    files = {
        "big.pcap": capture_files.pcap(kept, order=">"),
        "modified.pcap": capture_files.pcap(kept, magic=0xA1B2CD34),
        "enhanced.pcapng": ng.section() + ng.interface() + b"".join(ng.enhanced(packet) for packet in kept),
        "obsolete.pcapng": ng.section() + ng.interface() + b"".join(ng.obsolete(packet) for packet in kept),
    }
    fields = ("-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.cap_len", "-e", "tcp.seq_raw")
    expected = live.run("tshark", "-r", captures["short.pcap"], "-c", "50", *fields)

    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)

        assert live.run("tshark", "-r", path, *fields) == expected
