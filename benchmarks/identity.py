"""Identity against a large cluster: time to the first snapshot, memory, cost of a watch event, cost of a lookup.

The API server is the fake one of the tests, in a process of its own; everything is measured in a fresh process of the agent's modules.
`--pods`, `--services`, `--peers`; without `--peers` both ways of naming remote pods are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import IO, Any

import numpy as np

from otel_ebpf_receiver.identity.address import packed
from otel_ebpf_receiver.identity.directory import Behind, Directory, find_both
from otel_ebpf_receiver.identity.kubernetes.client import Access, Api
from otel_ebpf_receiver.identity.kubernetes.cluster import Cluster
from otel_ebpf_receiver.identity.kubernetes.rows import Options
from otel_ebpf_receiver.identity.kubernetes.watch import Timing
from otel_ebpf_receiver.identity.snapshot import Snapshot
from otel_ebpf_receiver.pipeline import SLICE
from otel_ebpf_receiver.telemetry.workload import Flows

_CALLS = 300
_EVENTS = 5000
_HASTE = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--services", type=int, default=500)
    parser.add_argument("--peers", choices=("pods", "services"))
    parser.add_argument("--server", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        _measure(options.peers, options.server)
        return
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; kernel {platform.release()}; "
        f"Python {platform.python_version()}, numpy {np.__version__}"
    )
    print(f"command: {' '.join(sys.argv)}; fake API server with {options.pods} pods, {options.services} services, 50 nodes")
    for peers in [options.peers] if options.peers else ("pods", "services"):
        _run(options.pods, options.services, peers)


def _run(pods: int, services: int, peers: str) -> None:
    command = [sys.executable, "-m", "tests.kubernetes.cluster", "--pods", str(pods), "--services", str(services)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
        tempfile.NamedTemporaryFile("w") as file,
    ):
        assert server.stdin
        assert server.stdout
        try:
            file.write(server.stdout.readline())
            file.flush()
            me = [sys.executable, __file__, "--server", file.name, "--peers", peers]
            with subprocess.Popen(me, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agent:
                assert agent.stdin
                assert agent.stdout
                _relay(agent.stdin, agent.stdout, server.stdin, server.stdout)
        finally:
            server.terminate()


def _relay(to_agent: IO[str], from_agent: IO[str], to_server: IO[str], from_server: IO[str]) -> None:
    """Print what the agent's process says; what it wants of the server is passed on, and the answer back."""
    for line in from_agent:
        if line.startswith("ask "):
            to_server.write(line.removeprefix("ask "))
            to_server.flush()
            to_agent.write(from_server.readline())
            to_agent.flush()
        else:
            print(line, end="", flush=True)


def _measure(peers: Any, kubeconfig: str) -> None:
    base_mib = _rss_mib()
    start_s, cpu_s = time.perf_counter(), time.process_time()
    directory = Directory(is_cluster=True)
    cluster = Cluster(Api(Access(kubeconfig)), directory, Options("node-0"), peers=peers)
    cluster.start()
    _until(lambda: cluster.is_ready)
    first_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    _until(lambda: not cluster.status().missing)
    time.sleep(2.0)
    status = cluster.status()
    print(f"peers: {peers}: {dict(status.objects)}")
    print(f"  first snapshot            {first_s:7.2f} s    (CPU {cpu_s:.2f} s, imports of the client included; must be 3 s)")
    print(f"  RSS                       {_rss_mib():7.1f} MiB  ({base_mib:.1f} before: numpy and this package alone)")
    _requests(_ask("requests"))
    _events(cluster)
    _lookup(directory)
    cluster.stop()
    _hour(peers, kubeconfig)


def _ask(line: str) -> dict[str, int]:
    """Gives the server a line of `tests.kubernetes.cluster`; the requests that it has had."""
    print(f"ask {line}", flush=True)
    asked: dict[str, int] = json.loads(sys.stdin.readline())
    return asked


def _requests(asked: dict[str, int]) -> None:
    print(
        f"  requests until then       {sum(asked.values()):7d}  ({', '.join(f'{kind} {count}' for kind, count in sorted(asked.items()))})"
    )


def _hour(peers: Any, kubeconfig: str) -> None:
    """An hour of a cluster in which nothing happens, in a minute: watches of a sixtieth of their length."""
    hour = Timing()
    timing = replace(hour, watch_low_s=hour.watch_low_s / _HASTE, watch_high_s=hour.watch_high_s / _HASTE)
    cluster = Cluster(Api(Access(kubeconfig)), Directory(is_cluster=True), Options("node-0"), peers=peers, timing=timing)
    cluster.start()
    _until(lambda: cluster.is_ready and not cluster.status().missing)
    before = _ask("requests")
    time.sleep(3600 / _HASTE)
    after = _ask("requests")
    cluster.stop()
    print("  requests in an hour       " + ", ".join(f"{kind} {count - before.get(kind, 0)}" for kind, count in sorted(after.items())))


def _events(cluster: Cluster) -> None:
    """Own pods change as fast as they can, then twenty times a second; what the benchmark's own thread takes is not counted."""
    for text, rounds, count in (("burst", 1, _EVENTS), ("20 a second", 100, 1)):
        cpu_s, built = _touch(cluster, rounds, count)
        cost_ms = cpu_s / (rounds * count) * 1000
        print(
            f"  event of a pod, {text:<12}{cost_ms:7.3f} ms   "
            f"(CPU of all threads of the agent; {rounds * count} events, {built} snapshots; must be 0.15 ms)"
        )


def _touch(cluster: Cluster, rounds: int, count: int) -> tuple[float, int]:
    """CPU seconds of all threads but this one, and snapshots, while the server changes `count` pods in each of `rounds`."""
    before, built, cpu_s = _seen(cluster), cluster.status().snapshots_total, _others_cpu_s()
    for _ in range(rounds):
        _ask(f"touch {count}")
        time.sleep(0.05)
    _until(partial(_has_seen, cluster, before + rounds * count))
    time.sleep(1.0)
    return _others_cpu_s() - cpu_s, cluster.status().snapshots_total - built


def _others_cpu_s() -> float:
    return time.process_time() - time.thread_time()


def _seen(cluster: Cluster) -> int:
    return cluster.status().watches["pods"].events_total


def _has_seen(cluster: Cluster, events: int) -> bool:
    return _seen(cluster) >= events


def _lookup(directory: Directory) -> None:
    snapshot, random = directory.snapshot, np.random.default_rng(1)
    directory.watch_taps(dict.fromkeys(range(1, 101), Behind.WORKLOAD))
    keys = np.sort(random.integers(0, 1 << 63, len(snapshot.holders.words), np.int64))
    for rows in (2_000, SLICE):
        flows = _flows(snapshot, random, rows)
        wanted = keys[random.integers(0, len(keys), 2 * rows)]
        (find_ns, find_least), (whole_ns, whole_least) = (
            _ns(partial(find_both, snapshot, flows), rows),
            _ns(partial(directory.identify, flows), rows),
        )
        bare_ns, bare_least = _ns(partial(np.searchsorted, keys, wanted), rows)
        print(
            f"  lookup of both sides      {find_ns:7.0f} ns per exchange in batches of {rows}, least {find_least:.0f} (must be 100 ns), "
            f"all of `identify` {whole_ns:.0f}, least {whole_least:.0f};"
        )
        print(f"                                    a bare binary search for as many keys {bare_ns:.0f}, least {bare_least:.0f}")


def _flows(snapshot: Snapshot, random: np.random.Generator, rows: int) -> Flows:
    """Each side somebody known at random; one row in ten with a client from outside."""
    known = snapshot.holders.words[:-1].view(np.uint8)
    client, server = known[random.integers(0, len(known), rows)].copy(), known[random.integers(0, len(known), rows)].copy()
    client[::10] = np.frombuffer(packed("203.0.113.9"), np.uint8)
    return Flows(
        tap=random.integers(1, 101, rows),
        direction=random.integers(1, 3, rows).astype(np.uint8),
        client_address=client,
        server_address=server,
        client_port=random.integers(32768, 60999, rows),
        server_port=np.full(rows, 8080, np.int64),
        start_unix_ns=np.full(rows, time.time_ns(), np.uint64),
    )


def _ns(call: Callable[[], object], rows: int) -> tuple[float, float]:
    """Processor time a row: median and least of many calls."""
    times = []
    for _ in range(_CALLS):
        start_ns = time.thread_time_ns()
        call()
        times.append((time.thread_time_ns() - start_ns) / rows)
    return statistics.median(times), min(times)


def _until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60.0
    while not holds():
        if time.monotonic() > end_s:
            raise SystemExit("the benchmark's condition did not come true within a minute")
        time.sleep(0.005)


def _rss_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


if __name__ == "__main__":
    main()
