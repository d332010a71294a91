"""The index of whole addresses."""

from __future__ import annotations

import random

import numpy as np
import pytest

from otel_ebpf_receiver.identity.holders import Holders, halves
from otel_ebpf_receiver.telemetry.columns import U8


def matrix(addresses: list[bytes]) -> U8:
    """A column of addresses."""
    return np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16)


def mapped(*octets: int) -> bytes:
    """An IPv4 address."""
    return bytes(10) + b"\xff\xff" + bytes(octets)


@pytest.mark.parametrize("count", [0, 1, 2, 50, 5_000, 40_000])
def test_addresses_are_found_like_in_a_dict(count: int) -> None:
    """Of both IP versions, whole networks in a row and such that differ in one half alone; who is not there is nobody, `::` included."""
    random_ = random.Random(count)
    pool = {mapped(10, number >> 16 & 255, number >> 8 & 255, number & 255) for number in range(count // 2)}
    pool |= {random_.choice((b"\xfd" + bytes(7), random_.randbytes(8))) + random_.randbytes(8) for _ in range(count - len(pool))}
    known = sorted(pool)
    random_.shuffle(known)
    others = [random_.randbytes(16) for _ in range(1000)] + [bytes(16), mapped(11, 0, 0, 1)]
    others += [one[:8] + bytes([one[8] ^ 1]) + one[9:] for one in known[:1000]] + [bytes([one[0] ^ 1]) + one[1:] for one in known[:1000]]
    asked = known + others
    expected = {address: number for number, address in enumerate(known)}

    holders = Holders(halves(matrix(known)))

    assert holders.find(halves(matrix(asked))).tolist() == [expected.get(one, len(known)) for one in asked]


def test_the_unspecified_address_can_be_held() -> None:
    """`::` is an address like others, though the row of nobody looks like it."""
    holders = Holders(halves(matrix([mapped(10, 0, 0, 1), bytes(16)])))

    assert holders.find(halves(matrix([bytes(16), mapped(10, 0, 0, 1), mapped(10, 0, 0, 2)]))).tolist() == [1, 0, 2]


def test_addresses_that_want_the_same_place_are_all_found() -> None:
    """Thousands of addresses of which many begin at one slot: each is found, and so is that the next one is not there."""
    random_ = random.Random(1)
    wanted: dict[int, list[bytes]] = {}
    probe = Holders(halves(matrix([random_.randbytes(16) for _ in range(300)])))
    pool = [random_.randbytes(16) for _ in range(200_000)]
    for slot, address in zip(probe._home(halves(matrix(pool))).tolist(), pool, strict=True):
        wanted.setdefault(slot, []).append(address)
    crowded = [one for same in sorted(wanted.values(), key=len)[-6:] for one in same]
    known, strangers = crowded[: 3 * len(crowded) // 4], crowded[3 * len(crowded) // 4 :]

    holders = Holders(halves(matrix(known + pool[:100])))

    found = holders.find(halves(matrix(known + strangers)))
    assert found.tolist()[: len(known)] == list(range(len(known)))
    assert all(one == holders.nobody or (known + pool[:100])[one] in strangers for one in found.tolist()[len(known) :])
