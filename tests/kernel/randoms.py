"""Random conversations against the kernel: suites by how they are cut and disordered, and what must hold in each."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tests.kernel import harness
from tests.kernel.harness import Kernel
from tests.wire import play
from tests.wire.conversations import Profile, conversation
from tests.wire.exchange import Exchange
from tests.wire.flow import Disorder, Flow
from tests.wire.messages import Shape

NOISE = Disorder(again=0.15, overlap=0.15, probe=0.15, acknowledged=0.3)
LATE_NOISE = Disorder(again=0.1, overlap=0.1, probe=0.1, swapped=0.05, late=0.05, acknowledged=0.3)
EVERYTHING = Disorder(again=0.1, overlap=0.1, probe=0.1, swapped=0.03, late=0.03, unseen=0.03, acknowledged=0.3)


@dataclass(frozen=True, slots=True)
class Suite:
    """How conversations are made, cut and disordered. `exact`: every exchange in every field; else: nothing false."""

    profile: Profile
    cuts: Callable[[random.Random], play.Cuts]
    disorder: Disorder | None = None
    exact: bool = True
    snap: int = 0
    """bytes of a frame that a capture keeps; 0: all"""
    joined: float = 0.0
    """how often the tap misses the handshake"""


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


REAL = Profile(Shape(body_max=12000, chunked=0.4, long_head=0.0), pipelined=0.1, deep=0.0, special_ends=0.3)
"""Sizes as on a wire, for suites that count how much is reported."""

FAR = Profile(Shape(body_max=60000, chunked=0.5), pipelined=0.1, deep=0.0, special_ends=0.3)
PIPELINED = Profile(Shape(body_max=12000), pipelined=0.8, deep=0.05, special_ends=0.3)
LOCKSTEP = Profile(Shape(target_max=20), pipelined=0.2, deep=0.0, lockstep=0.5, special_ends=0.2)


def _cut_at_wire(rng: random.Random) -> play.Cuts:
    return play.wire_cuts(rng.choice((536, 1448, 1448, 1448)))


SUITES: Mapping[str, Suite] = MappingProxyType({
    "whole": Suite(Profile(), lambda rng: play.whole),
    "cut": Suite(Profile(lockstep=0.1), play.random_cuts),
    "bytes": Suite(Profile(Shape(body_max=40, head_max=60, target_max=60), exchanges=3, deep=0.0), lambda rng: play.wire_cuts(1)),
    "long": Suite(Profile(Shape(long_head=0.2, body_max=20000), exchanges=4), play.random_cuts),
    "noise": Suite(Profile(lockstep=0.1), play.random_cuts, NOISE),
    "late": Suite(REAL, _cut_at_wire, Disorder(swapped=0.01, late=0.01, acknowledged=0.5), exact=False),
    "late-mixed": Suite(Profile(lockstep=0.1), play.random_cuts, Disorder(swapped=0.01, late=0.01, acknowledged=0.3), exact=False),
    "late-pipelined": Suite(PIPELINED, _cut_at_wire, Disorder(swapped=0.01, late=0.01, acknowledged=0.3), exact=False),
    "late-far": Suite(FAR, _cut_at_wire, Disorder(swapped=0.01, late=0.01, late_by=40, acknowledged=0.3), exact=False),
    "late-noise": Suite(Profile(), play.random_cuts, LATE_NOISE, exact=False, joined=0.05),
    "unseen": Suite(Profile(), play.random_cuts, Disorder(0.1, 0.1, 0.1, unseen=0.01, acknowledged=0.3), exact=False, joined=0.01),
    "unseen-tenth": Suite(Profile(), play.random_cuts, Disorder(0.1, 0.1, 0.1, unseen=0.1, acknowledged=0.3), exact=False, joined=0.1),
    "unseen-wire": Suite(REAL, _cut_at_wire, Disorder(unseen=0.05, acknowledged=0.5), exact=False, joined=0.1),
    "unseen-lockstep": Suite(LOCKSTEP, lambda rng: play.whole, Disorder(unseen=0.05, acknowledged=0.3), exact=False, joined=0.3),
    "snapped": Suite(REAL, _cut_at_wire, Disorder(acknowledged=0.3), exact=False, snap=220),
    "snapped-noise": Suite(Profile(), play.random_cuts, NOISE, exact=False, snap=250),
    "everything": Suite(Profile(), play.random_cuts, EVERYTHING, exact=False, joined=0.1),
})  # fmt: skip


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
