"""CPU of exporting 10,000 live series, the longest piece that holds the interpreter, and memory per series.

    .venv/bin/python -m benchmarks.series [--rounds N]

The longest piece is what another thread misses: it notes the time as often as it may, and the largest gap is printed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import threading
import time
import tracemalloc

import numpy as np

from benchmarks.traffic import workloads
from otel_ebpf_receiver.sources.http.instruments import BOUNDS_S
from otel_ebpf_receiver.telemetry.columns import Group, Instrument, Kind, Part, Points
from otel_ebpf_receiver.telemetry.exemplars import Sampled
from otel_ebpf_receiver.telemetry.keys import mix
from otel_ebpf_receiver.telemetry.red import MetricOptions, Red
from otel_ebpf_receiver.telemetry.resources import Resources

SERIES = 10_000
S = 10**9
INSTRUMENT = Instrument("benchmark.duration", "s", "A duration.", BOUNDS_S, is_duration=True)


def table(**options: str) -> Red:
    """10,000 series of 50 workloads, each with an exemplar."""
    known, resources = workloads(), Resources({"service.name": "x"}, {}, "1")
    red = Red(MetricOptions(**options), resources, start_unix_ns=S)  # type: ignore[arg-type]
    observe(red, resources.numbers(known, (np.arange(SERIES) % len(known)).astype(np.int32)), seed=1)
    return red


def observe(red: Red, numbers: np.ndarray[tuple[int], np.dtype[np.int64]], seed: int) -> None:
    random = np.random.default_rng(seed)
    which = np.arange(SERIES)

    def build(row: int) -> Part:
        return Part({"method": "GET", "route": f"/api/route-{row}/{{number}}", "status": 200, "scheme": "http", "version": "1.1"})

    ids = random.integers(0, 256, (SERIES, 24), dtype=np.uint8)
    sampled = Sampled(which, ids[:, :16].copy(), ids[:, 16:].copy(), np.full(SERIES, 2 * S, np.uint64))
    for _ in range(3):
        points = Points(INSTRUMENT, Kind.SERVER, which, random.exponential(0.1, SERIES), Group(mix(which), build))
        red.observe(points, numbers, sampled, now=2 * S)


def gaps(work: threading.Event, out: list[float]) -> None:
    """Notes the largest time between two looks at the clock."""
    last = time.perf_counter()
    while not work.is_set():
        time.sleep(0)
        now = time.perf_counter()
        out.append(now - last)
        last = now


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=9)
    rounds = arguments.parse_args().rounds
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"
    )
    for histogram in ("explicit_bucket_histogram", "base2_exponential_bucket_histogram"):
        tracemalloc.start()
        red = table(histogram=histogram)
        memory = tracemalloc.get_traced_memory()[0] / SERIES
        tracemalloc.stop()
        spent = []
        for number in range(rounds):
            start = time.process_time()
            collection = red.collect((3 + number) * S)
            spent.append(time.process_time() - start)
        held: list[float] = []
        stop = threading.Event()
        watcher = threading.Thread(target=gaps, args=(stop, held))
        sys.setswitchinterval(0.001)
        watcher.start()
        red.collect(100 * S)
        stop.set()
        watcher.join()
        size = sum(len(payload.body) for payload in collection.payloads)
        print(
            f"{histogram:36} {statistics.median(spent) * 1e3:6.1f} ms for {collection.items} series ({len(collection.payloads)} requests, "
            f"{size >> 10} KiB), longest piece {max(held) * 1e3:.1f} ms, {memory:.0f} bytes a series (counted as {red.size_bytes // SERIES})"
        )


if __name__ == "__main__":
    main()
