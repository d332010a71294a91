"""What the agent itself spends on an exchange, under real load: metrics only, the default spans, and with every exchange a span.

    scripts/bench cpu                or: python benchmarks/cpu.py [--rounds N] [--seconds N]

Counted is the processor time of the whole process, all threads, user and system, from the start of the load until everything is counted, less
what it spends idle in the same time. The receiver throws everything away. `pipeline` measures the same without a kernel side and without traffic.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

from benchmarks._stage import STATUS_PORT, Stage, agent, exchanges, numbers, sink, stage
from benchmarks.machine import describe, median, spread

METRICS = "metrics only"
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    METRICS: ("", {"OTEL_TRACES_EXPORTER": "none"}),
    "metrics, spans as by default (1,000/s)": ("", {}),
    "metrics, every exchange a span": ("telemetry: {sampling: {spans_per_second: 0}}", {"OTEL_TRACES_SAMPLER": "always_on"}),
}
IDLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one round."""

    us: float
    idle_ms: float
    per_s: float
    spans: float
    sent: float


def once(where: Stage, config: str, env: dict[str, str], seconds: int) -> Spent:
    with agent(where, config=config, env=env) as running:
        where.load(1)
        idle_s = running.cpu_s()
        time.sleep(IDLE_S)
        idle_s = (running.cpu_s() - idle_s) / IDLE_S
        counted, cpu_s, start_s = exchanges(where), running.cpu_s(), time.monotonic()
        load = where.load(seconds)
        time.sleep(0.5)
        cpu_s = running.cpu_s() - cpu_s - idle_s * (time.monotonic() - start_s)
        counted = exchanges(where) - counted
        spans = numbers(where, STATUS_PORT, "otel_ebpf_receiver_spans_total")
        sent = numbers(where, STATUS_PORT, "otel_ebpf_receiver_export_sent_total")
    encoded = sum(value for labels, value in spans.items() if '"encoded"' in labels)
    through = sum(value for labels, value in sent.items() if '"traces"' in labels)
    return Spent(cpu_s / counted * 1e6, idle_s * 1000, load.per_s, encoded, through)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=6)
    options = arguments.parse_args()
    print(describe())
    found: dict[str, list[Spent]] = {variant: [] for variant in VARIANTS}
    with stage() as where, sink(where):
        for _ in range(options.rounds):
            for variant, (config, env) in VARIANTS.items():
                found[variant].append(once(where, config, env, options.seconds))
    print(f"\nus of the agent's CPU an exchange, medians of {options.rounds} alternated rounds of {options.seconds} s at saturation")
    base = median([one.us for one in found[METRICS]])
    for variant, rounds in found.items():
        us = [one.us for one in rounds]
        must = "  (must be 1)" if variant == METRICS else f"  {median(us) / base:.1f} times metrics only"
        print(
            f"{variant:40}{median(us):7.2f} ({min(us):.2f}..{max(us):.2f}){must}; {spread([one.per_s for one in rounds])} requests/s; "
            f"{median([one.spans for one in rounds]):,.0f} spans made, {median([one.sent for one in rounds]):,.0f} sent"
        )
    idle = [one.idle_ms for rounds in found.values() for one in rounds]
    print(f"idle, after load: {median(idle):.1f} ms of CPU a second (nobody asks for its status page)")


if __name__ == "__main__":
    main()
