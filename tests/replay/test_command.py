"""The command `replay` as people run it: objects on standard output, one line about the whole on standard error, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.replay import live
from tests.replay.capture_files import Kept, pcap
from tests.wire.packets import ACK, FIN, PSH, SYN, ipv4, tcp

COMMAND = (sys.executable, "-c", "from otel_ebpf_receiver.cli import main; raise SystemExit(main())", "replay")
PATIENCE_S = 120


def run(path: Path) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, objects, messages."""
    done = subprocess.run([*COMMAND, str(path)], capture_output=True, text=True, timeout=PATIENCE_S)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def many(path: Path, count: int, *, kept: int = 65535, reason: bytes = b"OK", is_ended: bool = False) -> None:
    """A raw IP capture of one connection with so many exchanges, of each packet at most `kept` bytes."""
    asked, answered = b"GET /%08d HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 " + reason + b"\r\nContent-Length: 0\r\n\r\n"
    size = len(asked % 0)
    ends = (("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1"))
    packets = [ipv4(*ends[0], tcp(5000, 80, -1, 0, SYN)), ipv4(*ends[1], tcp(80, 5000, -1, 0, SYN | ACK))]
    for n in range(count):
        packets.append(ipv4(*ends[0], tcp(5000, 80, n * size, n * len(answered), ACK | PSH, asked % n)))
        packets.append(ipv4(*ends[1], tcp(80, 5000, n * len(answered), (n + 1) * size, ACK | PSH, answered)))
    if is_ended:
        packets.append(ipv4(*ends[0], tcp(5000, 80, count * size, count * len(answered), ACK | FIN)))
        packets.append(ipv4(*ends[1], tcp(80, 5000, count * len(answered), count * size + 1, ACK | FIN)))
    path.write_bytes(pcap([Kept(10**18 + n * 1000, packet[:kept], len(packet)) for n, packet in enumerate(packets)], link_type=101))


def test_each_exchange_is_one_object_with_the_times_of_the_capture(tmp_path: Path) -> None:
    """Method, path, status, port and times are those of the file, in its order; the exit is clean and one line says how it went."""
    path = tmp_path / "a.pcap"
    many(path, 3)

    code, objects, messages = run(path)

    keys = ("http.request.method", "url.path", "http.response.status_code", "client.port", "client.address", "server.address")
    assert [tuple(found[key] for key in keys) for found in objects] == [("GET", f"/{n:08}", 200, 5000, "10.0.0.1", "h") for n in range(3)]
    assert [found["start_unix_nano"] for found in objects] == [10**18 + (2 + 2 * n) * 1000 for n in range(3)]
    assert [found["first_byte_unix_nano"] for found in objects] == [found["end_unix_nano"] for found in objects]
    assert [found["end_unix_nano"] - found["start_unix_nano"] for found in objects] == [1000] * 3
    assert "8 frames (0 not IP, 0 split, 0 truncated), 3 exchanges, 0 open at the end, 0 records lost" in messages
    assert (code, len(messages.splitlines())) == (0, 1)


def test_real_traffic_gives_what_tshark_finds(captures: dict[str, Path]) -> None:
    """Paths and statuses of a capture by dumpcap are those that tshark tells."""
    path = captures["veth.pcapng"]
    rows = live.run(
        "tshark", "-r", path, "-Y", "http.response.code >= 200", "-T", "fields", "-e", "tcp.dstport", "-e", "http.response.code"
    )

    code, objects, _ = run(path)

    assert code == 0
    assert [(str(found["client.port"]), str(found["http.response.status_code"])) for found in objects] == [
        tuple(row.split("\t")) for row in rows.splitlines()
    ]


def test_exchanges_that_were_given_up_are_told_with_the_reason(tmp_path: Path) -> None:
    """A capture that left out the ends of status lines gives no exchange, and the line says of how many requests and why."""
    path = tmp_path / "a.pcap"
    many(path, 3, kept=76, reason=b"of a length that does not fit", is_ended=True)

    code, objects, messages = run(path)

    assert (code, objects) == (0, [])
    assert "0 exchanges" in messages
    assert "0 records lost; not whole: http_given_up 3, http_resync_truncated 1\n" in messages


def test_exchanges_whose_answers_are_cut_behind_the_status_are_told(tmp_path: Path) -> None:
    """Each is flagged, and the line says that something was not there."""
    path = tmp_path / "a.pcap"
    many(path, 3, kept=76, is_ended=True)

    code, objects, messages = run(path)

    assert (code, [found["http.response.status_code"] for found in objects]) == (0, [200, 200, 200])
    assert all({"uncertain_end", "uncertain_size"} <= set(found["otel_ebpf_receiver.flags"]) for found in objects)
    assert "3 exchanges, 0 open at the end, 0 records lost; not whole: http_resync_truncated 3\n" in messages


def test_broken_file_is_told_after_what_was_good(tmp_path: Path) -> None:
    """Of a file that breaks off all exchanges before are printed; then the message, and an exit that is not clean."""
    path = tmp_path / "a.pcap"
    many(path, 3)
    path.write_bytes(path.read_bytes()[:-1])

    code, objects, messages = run(path)

    assert code == 1
    assert [found["url.path"] for found in objects] == ["/00000000", "/00000001"]
    assert "is broken at byte" in messages
    assert "2 exchanges, 1 open at the end" in messages


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be opened: No such file"),
        (b"text\n", "neither pcap nor pcapng"),
        (pcap([Kept(1, b"x")], link_type=127), "link type 127"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """A missing file and an unknown link type end with exit 1 and the reason."""
    path = tmp_path / "a.pcap"
    if content is not None:
        path.write_bytes(content)

    code, objects, messages = run(path)

    assert (code, objects) == (1, [])
    assert reason in messages
    assert "Traceback" not in messages
    # A count of nothing would only stand before the reason.
    assert ("frames" in messages) == ("link type" in reason)


def test_reader_that_leaves_early_ends_it_quietly(tmp_path: Path) -> None:
    """When nobody reads on, as behind `head`, the command ends without a word about it."""
    path = tmp_path / "a.pcap"
    many(path, 20_000)

    with subprocess.Popen([*COMMAND, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = json.loads(process.stdout.readline())
        process.stdout.close()
        messages = process.stderr.read()
        process.wait(PATIENCE_S)

    assert first["url.path"] == "/00000000"
    assert [line for line in messages.splitlines() if "compiling the kernel side" not in line] == []
