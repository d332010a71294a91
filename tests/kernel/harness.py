"""The kernel programs as a function: frames in, records out. Loads them once; everything that a test needs of the loader is here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from otel_ebpf_receiver.kernel.programs import Programs
from otel_ebpf_receiver.sources.http.record import TARGET, Flag
from tests.kernel import expectation
from tests.wire.exchange import Exchange
from tests.wire.flow import Flow, Sent


class Kernel:
    """Loaded programs; `serial` gives every connection endpoints of its own."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.serial = 0
        self.clock_ns = 10**12

    def next(self) -> int:
        """A number for the endpoints of the next connection."""
        self.serial += 1
        return self.serial

    def feed(self, frames: Iterable[Sent]) -> None:
        """What the tap sees of these."""
        run = self.programs.test_run
        for sent in frames:
            if sent.seen:
                run(sent.frame, time_ns=sent.time_ns)

    def drain(self) -> list[dict[str, Any]]:
        """Records since the last time."""
        rows = self.programs.transports["http"].drain()
        return [expectation.decoded(row) for row in rows]

    def records(self, flow: Flow) -> list[dict[str, Any]]:
        """Plays a connection; its records. Records of others are a failure."""
        self.drain()
        self.feed(flow.frames)
        return self.drain()

    def counters(self) -> dict[str, int]:
        """All counters."""
        return self.programs.counters()


def exact(flow: Flow, exchanges: list[Exchange], got: list[dict[str, Any]], *, target_room: int = TARGET) -> list[str]:
    """Complaints, when every exchange must be reported exactly once and in every field."""
    out = []
    left = list(got)
    for i, e in enumerate(exchanges):
        want = expectation.expected(flow, exchanges, i, target_room=target_room)
        match = next((g for g in left if g["request_seq"] == want["request_seq"]), None)
        if match is None:
            out.append(f"missing: {e.method!r} {e.target[:40]!r} {e.status} {e.error} {e.side}")
            continue
        left.remove(match)
        wrong = expectation.differences(want, match)
        if wrong:
            out.append(f"wrong: {e.method!r} {e.target[:40]!r}: {shown(wrong)}")
    return out + [f"invented: {brief(g)}" for g in left]


def truthful(flow: Flow, exchanges: list[Exchange], got: list[dict[str, Any]]) -> list[str]:
    """Complaints, when not everything need be reported, but nothing false or twice."""
    out = []
    for n, g in enumerate(got):
        wrong = expectation.falsehoods(flow, exchanges, g)
        if wrong:
            out.append(f"false: {brief(g)}: {shown(wrong)}")
        if any(g["request_seq"] == other["request_seq"] for other in got[:n]):
            out.append(f"twice: {brief(g)}")
    return out


def shown(wrong: dict[str, tuple[Any, Any]]) -> str:
    """Differences in words."""
    return "; ".join(f"{name} is {got!r}, must be {want!r}" for name, (want, got) in wrong.items())


def brief(got: dict[str, Any]) -> str:
    """A record in a line."""
    ends = f"{expectation.address(got['client_address'])}:{got['client_port']}"
    return (f"{ends} {got['method_text']!r} {got['target'][:40]!r} {got['status']} bodies {got['request_body']}/{got['response_body']}"
            f" error {got['error']} side {got['side']} {Flag(got['flags'])!r}")  # fmt: skip


def transcript(flow: Flow) -> str:
    """The frames in their order."""
    return "\n".join(str(sent) for sent in flow.frames)
