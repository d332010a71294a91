"""The ring is read whole at every place, its end included, and takes no memory of the agent's while nothing waits."""

from __future__ import annotations

import mmap
import random
from pathlib import Path

from otel_ebpf_receiver.kernel.loader import BuildOptions
from otel_ebpf_receiver.kernel.room import FEW
from tests.kernel import loaded
from tests.kernel.harness import Kernel
from tests.wire import play
from tests.wire.exchange import CLIENT, SERVER
from tests.wire.writer import Step

RING = 16 * mmap.PAGESIZE


def test_records_across_the_end_of_the_ring_are_whole() -> None:
    """Many times round a small ring, one to thirty records at a time: every record comes once, in order, with its own path."""
    expected: list[str] = []
    seen: list[str] = []
    with loaded.kernel(options=BuildOptions(ring_bytes=RING)) as kernel:
        chance = random.Random(1)
        for number in range(400):
            path = f"/{number}/{'x' * (number % 90)}"
            _exchange(kernel, path, chance)
            expected.append(path)
            if chance.random() < 0.15 or len(expected) - len(seen) == 30:
                seen += [got["target"].decode() for got in kernel.drain()]
        seen += [got["target"].decode() for got in kernel.drain()]

    assert seen == expected


def test_the_ring_is_mapped_only_while_it_is_read() -> None:
    """Of a loaded ring the two pages with its positions are mapped, and nothing else."""
    before = _mapped_bytes()
    with loaded.kernel(options=BuildOptions(ring_bytes=RING)):
        mapped = _mapped_bytes() - before

    assert mapped == 2 * mmap.PAGESIZE


def test_records_that_are_kept_are_not_overwritten() -> None:
    """What one drain gave is the same after others, and its memory serves again once nobody keeps it."""
    with loaded.kernel() as kernel:
        ring = kernel.programs.transports["http"]

        kept, places = [], set()
        for number in range(6):
            _exchange(kernel, f"/{number}")
            rows = ring.drain()
            places.add(rows.ctypes.data)
            if number < 3:
                kept.append(rows["line"])
            del rows

        assert [column.tolist() for column in kept] == [[f"GET /{number}".encode()] for number in range(3)]
        assert len(places) == 4


def test_what_a_burst_touched_is_given_back_by_the_next_small_drain() -> None:
    """Many records at once make their copies resident; a drain of few frees them."""
    with loaded.kernel() as kernel:
        ring = kernel.programs.transports["http"]
        for number in range(4 * FEW):
            _exchange(kernel, f"/{number}")
        before = _resident_bytes()

        count = len(ring.drain())
        burst = _resident_bytes() - before
        few, record = len(ring.drain()), ring.drain().dtype
        left = _resident_bytes() - before

    assert (count, few) == (4 * FEW, 0)
    assert burst > 0.9 * count * record.itemsize
    assert left < burst / 2


def _exchange(kernel: Kernel, path: str, chance: random.Random | None = None) -> None:
    chance = chance or random.Random(1)
    steps = [Step(CLIENT, f"GET {path} HTTP/1.1\r\n\r\n".encode()), Step(SERVER, b"HTTP/1.1 204 No Content\r\n\r\n")]
    flow = play.play(steps, play.random_ends(chance, kernel.next()), chance, start_ns=kernel.clock_ns)
    kernel.clock_ns = flow.now_ns + 1000
    kernel.feed(flow.frames)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def _mapped_bytes() -> int:
    """Of all maps of the kernel; other tests keep theirs."""
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "bpf" in line]
    return sum(int(end, 16) - int(begin, 16) for begin, end in (line.split()[0].split("-") for line in mapped))
