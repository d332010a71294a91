"""The suites of random conversations: what they are made of, how they are cut and disordered, and what must hold in each."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tests.wire import play
from tests.wire.flow import Disorder
from tests.wire.messages import Shape
from tests.wire.writer import Profile


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


NOISE = Disorder(again=0.15, overlap=0.15, probe=0.15, acknowledged=0.3)
LATE = Disorder(swapped=0.01, late=0.01, acknowledged=0.3)
LATE_NOISE = Disorder(again=0.1, overlap=0.1, probe=0.1, swapped=0.05, late=0.05, acknowledged=0.3)
LATE_FAR = Disorder(swapped=0.01, late=0.01, late_by=40, acknowledged=0.3)
UNSEEN = Disorder(again=0.1, overlap=0.1, probe=0.1, unseen=0.01, acknowledged=0.3)
UNSEEN_TENTH = Disorder(again=0.1, overlap=0.1, probe=0.1, unseen=0.1, acknowledged=0.3)
UNSEEN_ONLY = Disorder(unseen=0.05, acknowledged=0.5)
EVERYTHING = Disorder(again=0.1, overlap=0.1, probe=0.1, swapped=0.03, late=0.03, unseen=0.03, acknowledged=0.3)

MIXED = Profile(lockstep=0.1)
TINY = Profile(Shape(body_max=40, head_max=60, target_max=60), exchanges=3, deep=0.0)
LONG = Profile(Shape(long_head=0.2, body_max=20000), exchanges=4)
REAL = Profile(Shape(body_max=12000, chunked=0.4), pipelined=0.1, deep=0.0, special_ends=0.3)
FAR = Profile(Shape(body_max=60000, chunked=0.5), pipelined=0.1, deep=0.0, special_ends=0.3)
PIPELINED = Profile(Shape(body_max=12000), pipelined=0.8, deep=0.05, special_ends=0.3)
LOCKSTEP = Profile(Shape(target_max=20), pipelined=0.2, deep=0.0, lockstep=0.5, special_ends=0.2)
# A client that keeps several requests under way, each answer letting out the next, looks to a tap that missed one of them like a client
# that keeps one: nothing on the wire tells them apart. So where the tap misses segments for good, pipelines are batches; `unseen-lockstep`
# is the other case.
BATCHES = Profile(interleaved=False)
REAL_BATCHES = Profile(Shape(body_max=12000, chunked=0.4), pipelined=0.1, deep=0.0, special_ends=0.3, interleaved=False)


def _wire(rng: random.Random) -> play.Cuts:
    return play.wire_cuts(rng.choice((536, 1448, 1448, 1448)))


def _whole(rng: random.Random) -> play.Cuts:
    return play.whole


def _single(rng: random.Random) -> play.Cuts:
    return play.wire_cuts(1)


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        "whole": Suite(Profile(), _whole),
        "cut": Suite(MIXED, play.random_cuts),
        "bytes": Suite(TINY, _single),
        "long": Suite(LONG, play.random_cuts),
        "noise": Suite(MIXED, play.random_cuts, NOISE),
        "late": Suite(REAL, _wire, LATE, exact=False),
        "late-mixed": Suite(MIXED, play.random_cuts, LATE, exact=False),
        "late-pipelined": Suite(PIPELINED, _wire, LATE, exact=False),
        "late-far": Suite(FAR, _wire, LATE_FAR, exact=False),
        "late-noise": Suite(Profile(), play.random_cuts, LATE_NOISE, exact=False),
        "unseen": Suite(BATCHES, play.random_cuts, UNSEEN, exact=False, joined=0.01),
        "unseen-tenth": Suite(BATCHES, play.random_cuts, UNSEEN_TENTH, exact=False, joined=0.1),
        "unseen-wire": Suite(REAL_BATCHES, _wire, UNSEEN_ONLY, exact=False, joined=0.1),
        "unseen-lockstep": Suite(LOCKSTEP, _whole, UNSEEN_ONLY, exact=False, joined=0.3),
        "snapped": Suite(REAL, _wire, exact=False, snap=220),
        "snapped-noise": Suite(Profile(), play.random_cuts, NOISE, exact=False, snap=250),
        "everything": Suite(BATCHES, play.random_cuts, EVERYTHING, exact=False, joined=0.1),
    }
)
