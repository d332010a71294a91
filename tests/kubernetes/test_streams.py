"""The stream of a watch: lines out of chunks, wherever they are cut, and what comes together told of together."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from otel_ebpf_receiver.identity.kubernetes.client import Access, Api, Stream, Unreachable
from otel_ebpf_receiver.identity.kubernetes.objects import Wanted
from otel_ebpf_receiver.identity.kubernetes.resources import JSON, Resource, resources
from otel_ebpf_receiver.identity.kubernetes.watch import Watch
from tests.kubernetes import cluster
from tests.kubernetes.fakeapi import FakeApi, Fault, Handler
from tests.kubernetes.following import QUICK, until

PODS = "/api/v1/pods"
LINES = [b'{"n":1}', b'{"n":2}', b'{"n":"' + b"x" * 30 + b'"}', b'{"n":4}']
# Two lines in a chunk that has an extension, a line in two chunks, a line alone, and a trailer behind the last chunk.
BODY = b"".join(
    (
        b"10;name=value\r\n%s\n%s\n\r\n" % (LINES[0], LINES[1]),
        b"8\r\n%s\r\n" % LINES[2][:8],
        b"%X\r\n%s\n\r\n" % (len(LINES[2]) - 7, LINES[2][8:]),
        b"8\r\n%s\n\r\n" % LINES[3],
        b"0\r\nTrailer: value\r\n\r\n",
    )
)


@contextmanager
def streaming(folder: Path, *pieces: bytes) -> Iterator[Stream]:
    """A watch that is answered so: each piece in a write of its own, then the end of the connection."""

    def answer(handler: Handler) -> None:
        handler.begin_chunks()
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
            if len(pieces) > 1:
                # So that they do not arrive as one.
                time.sleep(0.002)
        handler.close_connection = True

    with FakeApi() as api:
        (folder / "kubeconfig").write_text(api.kubeconfig())
        api.fault(Fault(PODS, act=answer))
        stream = Api(Access(str(folder / "kubeconfig"))).watch(PODS, {"watch": "1"}, JSON, 30.0)
        try:
            yield stream
        finally:
            stream.close()


def test_lines_are_whole_wherever_the_body_is_cut(tmp_path: Path) -> None:
    """At every byte, in sizes of chunks, their ends and the trailer too."""
    for at in range(1, len(BODY)):
        with streaming(tmp_path, BODY[:at], BODY[at:]) as stream:
            assert [line for lines in stream.lines() for line in lines] == LINES, at


def test_what_came_together_is_given_together(tmp_path: Path) -> None:
    """Nothing stays in a buffer of a library, where whoever waits after each line would leave it."""
    with streaming(tmp_path, BODY) as stream:
        lines = list(stream.lines())

    assert lines == [LINES]


def test_a_line_may_be_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    """In one chunk or in several, with others before and behind it."""
    lines = [b"x" * size for size in (10, 700_000, 20, 300_000, 1_200_000, 30)]
    text = b"".join(line + b"\n" for line in lines)
    cuts = [0, 11, 500_000, 700_012, 1_000_033, 2_200_034, len(text)]
    body = b"".join(b"%x\r\n%s\r\n" % (end - begin, text[begin:end]) for begin, end in itertools.pairwise(cuts)) + b"0\r\n\r\n"

    with streaming(tmp_path, body) as stream:
        assert [line for lines in stream.lines() for line in lines] == lines


@pytest.mark.parametrize(
    "body",
    [b"", b"8\r\n", b"8\r\n{}\n", b"3\r\n{}\n\r\n", b"-1\r\n", b"zz\r\n{}\n\r\n", b"7fffffff\r\n{}\n", b"3" * 70_000],
    ids=["nothing", "no data", "cut", "no last chunk", "negative", "no number", "too large", "no end"],
)
def test_a_body_that_is_no_whole_one_is_unreachable(tmp_path: Path, body: bytes) -> None:
    """Cut, of no size, or larger than any object: the watch begins anew."""
    with streaming(tmp_path, body) as stream, pytest.raises(Unreachable):
        list(stream.lines())


def test_a_line_that_the_last_chunk_cuts_is_unreachable(tmp_path: Path) -> None:
    """The end of the body inside an event is a fault, not an event."""
    with streaming(tmp_path, b"4\r\n{}\n{\r\n0\r\n\r\n") as stream:
        lines = stream.lines()

        assert next(lines) == [b"{}"]
        with pytest.raises(Unreachable, match="inside a line"):
            next(lines)


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "cut"])
def test_a_body_that_ends_with_its_connection_is_read_as_it_comes(tmp_path: Path, is_whole: bool) -> None:
    """A proxy of HTTP/1.0 sends no chunks: each line is given when it is there, and then the stream is quiet."""
    read = threading.Semaphore(0)

    def answer(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.0"
        handler.close_connection = True
        handler.send_response(200)
        handler.end_headers()
        for line in LINES:
            handler.wfile.write(line + b"\n")
            handler.wfile.flush()
            read.acquire(timeout=60)
        if not is_whole:
            handler.wfile.write(b'{"n":')

    with FakeApi() as api:
        (tmp_path / "kubeconfig").write_text(api.kubeconfig())
        api.fault(Fault(PODS, act=answer))
        stream = Api(Access(str(tmp_path / "kubeconfig"))).watch(PODS, {"watch": "1"}, JSON, 30.0)
        lines = stream.lines()
        for line in LINES:
            assert (next(lines), stream.is_quiet()) == ([line], True)
            read.release()
        with nullcontext() if is_whole else pytest.raises(Unreachable, match="inside a line"):
            assert list(lines) == []
        stream.close()


class Told:
    """A sink that writes down in which order it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def replace(self, kind: str, objects: Mapping[str, Any]) -> None:
        self.lines.append("replaced")

    def apply(self, kind: str, uid: str, value: Any | None) -> None:
        self.lines.append(uid)

    def settled(self, kind: str) -> None:
        self.lines.append("settled")

    def changed(self, kind: str) -> None:
        """Of no matter here."""


def pods() -> Resource:
    """The pods of the node."""
    return resources(cluster.NODE, Wanted())[0]


def event(name: str, version: int) -> bytes:
    """The line that tells of a new pod."""
    body = cluster.pod(name, "10.1.0.2")
    body["metadata"]["resourceVersion"] = str(version)
    return json.dumps({"type": "ADDED", "object": body}).encode() + b"\n"


@pytest.mark.parametrize("is_cut", [False, True], ids=["quiet", "cut"])
def test_the_sink_is_told_when_no_more_comes(tmp_path: Path, is_cut: bool) -> None:
    """Once after the events that came together: when the stream is quiet, and also when it breaks behind them."""

    def answer(handler: Handler) -> None:
        handler.begin_chunks()
        lines = [event(f"p{number}", 200 + number) for number in range(3)]
        # More than is read at once, so that the stream is not quiet behind the events.
        last = b"%x\r\n%s" % (200_000, b"x" * 100_000) if is_cut else b""
        handler.wfile.write(b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines) + last)
        handler.wfile.flush()
        handler.close_connection = is_cut
        while not (is_cut or handler.state.is_stopped):
            time.sleep(0.01)

    with FakeApi() as api:
        (tmp_path / "kubeconfig").write_text(api.kubeconfig())
        api.fault(Fault(PODS, act=answer, times=1, only=lambda query: "watch" in query))
        told = Told()
        watch = Watch(Api(Access(str(tmp_path / "kubeconfig"))), pods(), told, QUICK)
        watch.worker.start()
        until(lambda: "settled" in told.lines, "the sink is told")
        watch.stop()
        watch.worker.join(10)

    assert told.lines[:5] == ["replaced", "uid-p0", "uid-p1", "uid-p2", "settled"]
