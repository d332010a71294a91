"""Seeded random conversations over HTTP/1.x, each with its own truth: never read back from the bytes."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.wire import endings, rounds
from tests.wire.writer import Profile, Writer

ENDS: tuple[Callable[[Writer], object], ...] = (
    endings.tunnel,
    endings.until_close,
    endings.ending,
    endings.unanswered,
    endings.cut_request,
    endings.cut_response,
    endings.until_close,
    endings.cut_response,
)


def conversation(rng: random.Random, profile: Profile, number: int = 0) -> Writer:
    """A whole conversation; `number` makes its targets unlike those of others."""
    w = Writer(rng, profile, number)
    left = rng.randrange(profile.exchanges + 1)
    while left > 0:
        roll = rng.random()
        if roll < profile.early:
            rounds.early(w)
            left -= 1
        elif roll < profile.early + profile.pipelined:
            count = rng.randrange(64, 101) if rng.random() < profile.deep else rng.randrange(2, 7)
            rounds.group(w, count)
            left -= min(count, 6)
        elif roll < profile.early + profile.pipelined + profile.lockstep:
            rounds.lockstep(w, rng.randrange(3, 9), rng.choice((2, 2, 3)))
            left -= 4
        else:
            rounds.group(w, 1)
            left -= 1
    if rng.random() < profile.special_ends:
        rng.choice(ENDS)(w)
    return w
