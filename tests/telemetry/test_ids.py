"""Ids are a keyed hash that both ends compute alike."""

from __future__ import annotations

import numpy as np
import pytest

from otel_ebpf_receiver.telemetry import ids
from otel_ebpf_receiver.telemetry.columns import Linkage

KEY = bytes(range(16))
MASK = (1 << 64) - 1


def siphash(key: bytes, message: bytes, compress: int, finish: int) -> int:
    """SipHash-c-d, written after the paper, one byte string at a time."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & MASK

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[1] = rotate(v[1], 13) ^ v[0]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) & MASK
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & MASK
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & MASK
            v[1] = rotate(v[1], 17) ^ v[2]
            v[2] = rotate(v[2], 32)

    padded = message + bytes(7 - len(message) % 8) + bytes((len(message) % 256,))
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        v[3] ^= word
        rounds(compress)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(finish)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def linkage(rows: int = 5000, seed: int = 1) -> Linkage:
    """Random rows, a third of them with a remote parent."""
    random = np.random.default_rng(seed)
    return Linkage(
        random.integers(0, 1 << 63, (9, rows), dtype=np.uint64),
        random.random(rows) < 0.3,
        random.integers(0, 256, (rows, 16), dtype=np.uint8),
        random.integers(0, 256, (rows, 8), dtype=np.uint8),
        random.random(rows) < 0.5,
        np.zeros(rows, "S64"),
        np.zeros(rows, bool),
    )


def test_the_reference_gives_the_published_vector() -> None:
    """The reference used below is SipHash: it gives the test vector of the paper's appendix."""
    assert siphash(KEY, bytes(range(15)), 2, 4) == 0xA129CA6149BE45E5


@pytest.mark.parametrize(("compress", "finish"), [(1, 3), (2, 4)])
def test_the_batch_is_hashed_as_each_row_alone(compress: int, finish: int) -> None:
    """Every row and label of a batch gives SipHash of its words and the label byte."""
    words = linkage(3000).words

    hashed = ids.siphash(KEY, words, labels=3, compress=compress, finish=finish)

    for row in (0, 1, 1023, 1024, 2999):
        message = words[:, row].astype("<u8").tobytes()
        assert [int(column[row]) for column in hashed] == [siphash(KEY, message + bytes((label,)), compress, finish) for label in range(3)]


def test_both_ends_give_the_same_ids() -> None:
    """Ids depend on the key and the shared words only, so another agent gives the same, and with another key different ones."""
    ours = ids.derive(KEY, linkage())
    theirs = ids.derive(KEY, linkage())
    strangers = ids.derive(KEY[::-1], linkage())

    assert (ours.trace == theirs.trace).all()
    assert (ours.client == theirs.client).all()
    assert not (ours.server == strangers.server).all(axis=1).any()
    assert not (ours.client == ours.server).all(axis=1).any()


def test_a_remote_parent_gives_its_trace_id() -> None:
    """Rows with a traceparent take its trace id and keep their own span ids."""
    link = linkage()

    made = ids.derive(KEY, link)

    assert (made.trace[link.traced] == link.trace_id[link.traced]).all()
    assert not (made.trace[~link.traced] == link.trace_id[~link.traced]).all(axis=1).any()


def test_the_chain_leaves_out_spans_that_nobody_sends() -> None:
    """SERVER hangs from CLIENT where that is sent, else from the remote parent where that is sampled, else from nothing."""
    link = linkage(4)
    link.traced[:] = [True, True, False, True]
    made = ids.derive(KEY, link)

    client, client_has, server, server_has = ids.parents(
        made, link, np.array([True, False, False, False]), np.array([True, True, True, False])
    )

    assert client_has.tolist() == [True, True, False, False]
    assert (client == link.parent_id).all()
    assert server_has.tolist() == [True, True, False, False]
    assert (server[0] == made.client[0]).all()
    assert (server[1] == link.parent_id[1]).all()


def test_a_key_of_the_wrong_size_is_refused() -> None:
    """A key that is not 16 bytes long is an error, not a weaker hash."""
    with pytest.raises(ValueError, match="expected 16"):
        ids.siphash(b"short", linkage(1).words)
