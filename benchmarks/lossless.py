"""Is every exchange counted at saturation? With a backend that answers, and with one that is dead; and how long the ring holds out.

    scripts/bench lossless           or: python benchmarks/lossless.py [--seconds N]

Compared are the requests that nginx has had, what wrk saw completed, and the agent's own histogram of durations (from its page for Prometheus).
wrk leaves the requests unfinished that are under way when its time is over: at most one a connection.
"""

from __future__ import annotations

import argparse
import time

from benchmarks._stage import CLOSED_PORT, CONNECTIONS, SINK_PORT, STATUS_PORT, Stage, agent, numbers, observed, sink, stage
from benchmarks.machine import describe
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.sources.http.kernel import kernel_source

AT_PER_S, MUST_MS = 100_000, 250
INTERVAL_MS = 1000


def ring_ms() -> tuple[int, float]:
    """Bytes of one record in the ring with its header, and the milliseconds of AT_PER_S that the ring holds."""
    stride = 8 + (kernel_source().record.itemsize + 7) // 8 * 8
    return stride, Config().capture.ring_bytes // stride / AT_PER_S * 1000


def settled(where: Stage) -> int:
    """Exchanges counted when no more arrive."""
    before, now = -1, observed(where)
    while now != before:
        time.sleep(3 * INTERVAL_MS / 1000)
        before, now = now, observed(where)
    return now


def run(where: Stage, seconds: int, port: int, name: str) -> None:
    env = {"OTEL_METRIC_EXPORT_INTERVAL": str(INTERVAL_MS)}
    with agent(where, exporters=("otlp", "prometheus"), endpoint=port, env=env) as running:
        before, counted = where.answered(), settled(where)
        cpu_s = running.cpu_s()
        load = where.load(seconds)
        cpu_s = running.cpu_s() - cpu_s
        counted = settled(where) - counted
        served = where.answered() - before - 1
        kernel = numbers(where, STATUS_PORT, "otel_ebpf_receiver_kernel_total")
        events = {labels.split('"')[1]: int(value) for labels, value in kernel.items()}
    counted -= 1  # nginx's status page, asked for before the load
    print(
        f"{name:14}{load.requests:11,} completed by wrk ({load.per_s:,.0f}/s, {load.errors} errors){served:12,} had by nginx{counted:12,} counted"
    )
    print(
        f"{'':14}completed - counted {load.requests - counted} (must be 0 beyond wrk's unfinished ones: -{CONNECTIONS} to 0); "
        f"had - counted {served - counted}; lost in the ring {events.get('http_lost', 0)}"
    )
    doubts = {name: events[name] for name in ("holes", "collided", "http_unpaired", "http_given_up", "http_resync_gap") if events.get(name)}
    print(f"{'':14}agent's CPU {cpu_s / load.requests * 1e6:.2f} us an exchange; doubts of the kernel side: {doubts or 'none'}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=30)
    options = arguments.parse_args()
    print(describe())
    stride, held_ms = ring_ms()
    print(
        f"\nring: {Config().capture.ring_bytes >> 20} MiB, {stride} bytes a record: {held_ms:.0f} ms of {AT_PER_S:,} exchanges a second (must be {MUST_MS})"
    )
    with stage() as where, sink(where):
        run(where, options.seconds, SINK_PORT, "backend")
        run(where, options.seconds, CLOSED_PORT, "dead backend")


if __name__ == "__main__":
    main()
