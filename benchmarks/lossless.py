"""Is every exchange counted at saturation? With a backend that answers, with one that is dead, and while everything that the agent knows of a
cluster of 5,000 pods is listed anew; and how long the ring holds out.

    scripts/bench lossless           or: python benchmarks/lossless.py [--seconds N]

Compared are the requests that nginx has had, what wrk saw completed, and the exchanges that the agent has taken in, each of which is observed; its
histogram of durations, as its page for Prometheus shows it, is printed beside them.
wrk leaves the requests unfinished that are under way when its time is over: at most one a connection.
A server and a client that are real leave too little of a small machine for PER_S exchanges a second: the last row's are frames made beforehand, as many to
each as lets the machine send so many (`benchmarks/_injected.py`). How many were sent is the truth there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from benchmarks._stage import (
    CLOSED_PORT,
    CONNECTIONS,
    SINK_PORT,
    STATUS_PORT,
    ApiServer,
    Stage,
    agent,
    api_server,
    exchanges,
    numbers,
    observed,
    sink,
    stage,
)
from benchmarks.machine import describe
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.sources.http.kernel import kernel_source

AT_PER_S, MUST_MS = 100_000, 250
PER_S, DEPTH = 80_000, 4
FIRST = ("nice", "-n", "-15")
"""Load and agent come before whatever else this machine does, the API server included: else it would be less of a load just when it matters."""
INTERVAL_MS = 1000
PODS = 5000
ALL_PODS = {"OTEL_EBPF_RECEIVER_KUBERNETES_PEERS": "pods"}


def ring_ms() -> tuple[int, float]:
    """Bytes of one record in the ring with its header, and the milliseconds of AT_PER_S that the ring holds."""
    stride = 8 + (kernel_source().record.itemsize + 7) // 8 * 8
    return stride, Config().capture.ring_bytes // stride / AT_PER_S * 1000


def settled(where: Stage) -> int:
    """Exchanges taken in when no more arrive."""
    before, now = -1, exchanges(where)
    while now != before:
        time.sleep(1.0)
        before, now = now, exchanges(where)
    return now


@contextlib.contextmanager
def relisting(api: ApiServer | None, seconds: int) -> Iterator[None]:
    """Half way through, all that is known of the cluster is asked for again."""
    if api is None:
        yield
        return
    before, timer = api.ask("requests"), threading.Timer(seconds / 2, api.ask, ("relist",))
    timer.start()
    try:
        yield
    finally:
        timer.join()
    after = api.ask("requests")
    print(
        f"  listed anew meanwhile, in pages: { ({kind: after[kind] - count for kind, count in before.items() if kind.startswith('list')}) }"
    )


def run(where: Stage, seconds: int, port: int, name: str, api: ApiServer | None = None) -> None:
    with agent(where, exporters=("otlp", "prometheus"), endpoint=port, env=settings(api)) as running:
        # The page asked for here is an exchange as well: of what nginx has had and of what is counted, it is in the first figures.
        had, counted = where.answered() + 1, settled(where)
        cpu_s = running.cpu_s()
        with relisting(api, seconds):
            load = where.load(seconds)
        cpu_s = running.cpu_s() - cpu_s
        counted = settled(where) - counted
        had = where.answered() - had
        time.sleep(3 * INTERVAL_MS / 1000)
        whole, in_histogram = exchanges(where), observed(where)
        events = kernel_events(where)
    print(f"{name}: wrk completed {load.requests:,} ({load.per_s:,.0f}/s, {load.errors} errors), nginx had {had:,}, counted {counted:,}")
    print(
        f"  completed - counted {load.requests - counted} (must be 0 but for wrk's unfinished ones: -{CONNECTIONS} to 0); had - counted {had - counted}"
    )
    print(f"  of {whole:,} taken in, the histogram that a page shows has {in_histogram:,}; {told(events)}")
    print(f"  agent's CPU {cpu_s / load.requests * 1e6:.2f} us an exchange")


def run_injected(where: Stage, seconds: int, api: ApiServer) -> None:
    command = ["--host", where.host.name, "--pod", where.pod.name, "--rate", str(PER_S), "--seconds", str(seconds), "--depth", str(DEPTH)]
    with agent(where, prefix=FIRST, exporters=("otlp", "prometheus"), env=settings(api)) as running:
        counted, cpu_s = settled(where), running.cpu_s()
        with relisting(api, seconds):
            done = subprocess.run(
                [*FIRST, sys.executable, "-m", "benchmarks._injected", *command], check=True, capture_output=True, text=True
            )
        cpu_s = running.cpu_s() - cpu_s
        counted = settled(where) - counted
        events = kernel_events(where)
    sent = json.loads(done.stdout)
    print(
        f"frames, {DEPTH} exchanges in each, {PODS:,} pods listed anew: sent {sent['exchanges']:,} ({sent['exchanges'] / sent['seconds']:,.0f}/s, "
        f"asked for were {PER_S:,}/s), counted {counted:,}"
    )
    print(f"  sent - counted {sent['exchanges'] - counted} (must be 0); {told(events)}")
    print(f"  agent's CPU {cpu_s / sent['exchanges'] * 1e6:.2f} us an exchange")


def settings(api: ApiServer | None) -> dict[str, str]:
    """The agent's environment."""
    return {"OTEL_METRIC_EXPORT_INTERVAL": str(INTERVAL_MS), **({**api.env, **ALL_PODS} if api else {})}


def kernel_events(where: Stage) -> dict[str, int]:
    """What the kernel side counts."""
    kernel = numbers(where, STATUS_PORT, "otel_ebpf_receiver_kernel_total")
    return {labels.split('"')[1]: int(value) for labels, value in kernel.items()}


def told(events: dict[str, int]) -> str:
    """Where exchanges went on the kernel side."""
    ends = {name: events[f"http_{name}"] for name in ("opened", "answered", "reset", "closed", "given_up", "sent", "lost")}
    doubts = {name: events[name] for name in ("holes", "collided", "http_unpaired", "http_resync_gap") if events.get(name)}
    return f"kernel side: {ends}, doubts: {doubts or 'none'}"


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
        with api_server(where, PODS) as api:
            run(where, options.seconds, SINK_PORT, f"backend, {PODS:,} pods listed anew", api)
            run_injected(where, options.seconds, api)


if __name__ == "__main__":
    main()
