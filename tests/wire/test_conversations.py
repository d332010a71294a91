"""The generator's truth against the reference parser, which reads nothing but the bytes."""

from __future__ import annotations

import random

import pytest

from tests.wire import reference
from tests.wire.conversations import conversation
from tests.wire.messages import Shape
from tests.wire.writer import Profile, Writer


def streams(w: Writer) -> tuple[bytes, bytes, list[tuple[int, str]]]:
    """Both streams of a conversation, and its ends."""
    data = [b"".join(step.data for step in w.steps if step.side == side) for side in (0, 1)]
    return data[0], data[1], [(step.side, step.end) for step in w.steps if step.end]


@pytest.mark.parametrize("seed", range(20))
def test_truth_is_what_a_strict_reader_finds(seed: int) -> None:
    """What the generator says of its conversations is what the reference parser reads in their bytes."""
    rng = random.Random(seed)
    profile = Profile(shape=Shape(long_head=0.02))

    for number in range(100):
        w = conversation(rng, profile, number * 1000)
        client, server, ends = streams(w)
        found = reference.read(client, server, ends)

        assert found == w.exchanges, (seed, number)


def test_conversations_hold_every_category() -> None:
    """A thousand conversations hold each kind of framing, ending and oddity that the tests are about."""
    rng = random.Random(7)

    made = [e for number in range(1000) for e in conversation(rng, Profile(), number * 1000).exchanges]

    assert {e.framing for e in made} == {"none", "length", "chunked", "close"}
    assert {(e.error, e.side) for e in made} >= {
        ("closed", "client"),
        ("closed", "server"),
        ("reset", "client"),
        ("reset", "server"),
        ("", ""),
    }
    assert {e.status for e in made} >= {0, 101, 200, 204, 304}
    assert {e.method for e in made} >= {b"GET", b"HEAD", b"CONNECT", b"M-SEARCH", b"QUERY"}
    assert any(e.interim for e in made)
    assert any(not e.request_complete and e.status for e in made)
