"""Random conversations against the kernel: one is made, played, judged and counted."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from tests.kernel import harness
from tests.kernel.harness import Kernel
from tests.kernel.suites import Suite
from tests.wire import play
from tests.wire.conversations import conversation
from tests.wire.exchange import Exchange
from tests.wire.flow import Flow


@dataclass(slots=True)
class Tally:
    """What came of a run of many."""

    conversations: int = 0
    wrong: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    reported: dict[str, int] = field(default_factory=dict)

    def add(self, exchanges: list[Exchange], got: set[int]) -> None:
        """`got`: places of the requests that were reported."""
        self.conversations += 1
        for e in exchanges:
            kind = "chunked" if e.framing == "chunked" else "other"
            self.asked[kind] = self.asked.get(kind, 0) + 1
            self.reported[kind] = self.reported.get(kind, 0) + (e.request.begin in got)

    def share(self, kind: str) -> float:
        """Of the exchanges of this kind, how many were reported."""
        return self.reported.get(kind, 0) / max(self.asked.get(kind, 0), 1)

    def __str__(self) -> str:
        shares = ", ".join(f"{kind} {self.reported[kind]} of {n} ({self.share(kind):.2%})" for kind, n in sorted(self.asked.items()))
        return f"{self.conversations} conversations, {self.wrong} wrong; reported: {shares}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One conversation's."""

    complaints: list[str]
    flow: Flow


def make(suite: Suite, seed: int, number: int, serial: int, start_ns: int) -> tuple[Flow, list[Exchange]]:
    """Conversation `number` of a seed, whatever ran before it."""
    rng = random.Random(f"{seed}/{number}")
    w = conversation(rng, suite.profile, number * 1000)
    ends = play.random_ends(rng, serial)
    handshake = rng.random() >= suite.joined
    flow = play.play(w.steps, ends, rng, suite.cuts(rng), disorder=suite.disorder, handshake=handshake, start_ns=start_ns)
    if suite.snap:
        flow.frames[:] = [replace(sent, frame=sent.frame[: suite.snap]) for sent in flow.frames]
    return flow, w.exchanges


def run(kernel: Kernel, suite: Suite, seed: int, number: int, tally: Tally) -> Verdict:
    """Plays one conversation and judges its records."""
    flow, exchanges = make(suite, seed, number, kernel.next(), kernel.clock_ns)
    kernel.clock_ns = flow.now_ns + 1000
    got = kernel.records(flow)
    complaints = harness.exact(flow, exchanges, got) if suite.exact else harness.truthful(flow, exchanges, got)
    isn = flow.ends.isn[0]
    tally.add(exchanges, {(g["request_seq"] - isn - 1) % 2**32 for g in got})
    tally.wrong += bool(complaints)
    return Verdict(complaints, flow)
