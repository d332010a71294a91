"""Frames that segmentation offload makes: up to 64 KiB, and beyond; and what two CPUs do to the order of such frames."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from functools import partial

import pytest

from otel_ebpf_receiver.kernel.programs import Programs
from otel_ebpf_receiver.sources.http.record import Flag
from tests.capture.namespaces import Namespace
from tests.live.links import pair
from tests.live.taps import answering, ask, drain, grown, sizes, tapped, wait_until

SIZE = 30_000_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
GET = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
RTM_NEWLINK, NLM_F_REQUEST, NLM_F_ACK = 16, 1, 4
IFLA_GSO_IPV4_MAX_SIZE, IFLA_GRO_IPV4_MAX_SIZE = 63, 64
CHUNK = 50_021
"""Odd, so that chunk heads lie anywhere in the frames."""


def allow_big_tcp(here: Namespace, name: str) -> None:
    """IPv4 frames of 180,000 bytes on this link (Linux 6.3). The distribution's `ip` does not know these attributes."""
    with here.inside(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        limits = b"".join(struct.pack("=HHI", 8, kind, 180_000) for kind in (IFLA_GSO_IPV4_MAX_SIZE, IFLA_GRO_IPV4_MAX_SIZE))
        body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(name), 0, 0) + limits
        sock.send(struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body)
        code = struct.unpack_from("=i", sock.recv(4096), 16)[0]
    if code:
        pytest.skip(f"this kernel has no BIG TCP over IPv4 ({os.strerror(-code)}); Linux 6.3 or newer has")


def chunked(body: bytes) -> bytes:
    """A whole chunked answer."""
    pieces = (body[at : at + CHUNK] for at in range(0, len(body), CHUNK))
    return (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces)
        + b"0\r\n\r\n"
    )


@contextlib.contextmanager
def on_cpu(number: int) -> Iterator[None]:
    """The calling thread, and those that it starts meanwhile, run on this of the CPUs that they may use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Frames that several CPUs send pass each other between the two ends of a pair; on one they keep their order."""
    with on_cpu(0):
        yield


@pytest.mark.usefixtures("one_cpu")
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("server", ["pod", "host"])
def test_frames_of_64_kib(programs: Programs, framing: str, server: str) -> None:
    """A body of 30 MB in frames as long as they get is counted to the byte, whichever way it crosses the tap, and nothing is lost."""
    answer = HEAD % SIZE + bytes(SIZE) if framing == "length" else chunked(bytes(SIZE))
    with pair() as (host, pod):
        asker, answerer, address = (host, pod, "10.77.0.2") if server == "pod" else (pod, host, "10.77.0.1")
        with tapped(programs, host, "v0"), answering(answerer, address, answer), sizes(host, "v0") as lengths:
            before = programs.counters()
            ask(asker, address, GET, expect=len(answer))
            found = drain(programs)
            counted = grown(programs, before)

    assert max(lengths) > 60_000
    assert [(one["status"], one["response_body"], one["flags"], one["error"]) for one in found] == [(200, SIZE, 0, 0)]
    assert not [name for name in counted if "resync" in name]


@pytest.mark.usefixtures("one_cpu")
def test_frames_beyond_64_kib_over_ipv4(programs: Programs) -> None:
    """A frame whose IPv4 header says 0 for its length is as long as it is."""
    answer = HEAD % SIZE + bytes(SIZE)
    with pair() as (host, pod):
        allow_big_tcp(host, "v0")
        allow_big_tcp(pod, "eth0")
        with tapped(programs, host, "v0"), answering(pod, "10.77.0.2", answer), sizes(host, "v0") as lengths:
            ask(host, "10.77.0.2", GET, times=2, expect=len(answer))
            found = drain(programs)

    assert max(lengths) > 66_000
    assert [(one["status"], one["response_body"], one["flags"], one["error"]) for one in found] == [(200, SIZE, 0, 0)] * 2


def _ended(programs: Programs, number: int) -> bool:
    return programs.counters()["flows_ended"] == number


def test_frames_that_pass_each_other(programs: Programs) -> None:
    """Sender and receiver on CPUs of their own put one direction's frames on both: the answer is exact, or says that its size is not, and none is wild."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    answer = chunked(bytes(SIZE))
    before = programs.counters()
    found = []
    with pair() as (host, pod), tapped(programs, host, "v0"), contextlib.ExitStack() as stack:
        with on_cpu(0):  # the thread that answers stays there
            stack.enter_context(answering(pod, "10.77.0.2", answer))
        with on_cpu(1):
            for number in range(1, 7):
                ask(host, "10.77.0.2", GET, expect=len(answer))
                wait_until(partial(_ended, programs, before["flows_ended"] + number))
                found += drain(programs)
    counted = grown(programs, before)

    assert [(one["status"], one["error"]) for one in found] == [(200, 0)] * 6
    assert [one for one in found if one["response_body"] != SIZE and not one["flags"] & Flag.UNCERTAIN_SIZE] == []
    assert "wild" not in counted
