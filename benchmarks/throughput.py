"""What watching costs the watched: nginx with one worker behind a veth, wrk on kept connections, with the agent, with an empty filter, without.

    scripts/bench throughput         or: python benchmarks/throughput.py [--rounds N] [--seconds N]

Beside it the processor time of nginx and wrk a request, in which the kernel's work for the tap is counted and which busy neighbours disturb less.
The agent runs with default options and exports to a receiver that throws away. Rounds of the variants alternate, each beginning with another.
One variant is told to leave the pod's address out: then its filter finds the connection of a packet and does no more, and nothing reaches the
agent, so that what is left is the least that any filter costs which tells connections apart.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from benchmarks._stage import SERVER, Load, Stage, agent, empty_filter, sink, stage
from benchmarks.machine import describe, median, spread


@contextlib.contextmanager
def watched(where: Stage, variant: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if variant == "with the agent":
            stack.enter_context(agent(where))
        elif variant == "with the agent, the pod left out":
            stack.enter_context(agent(where, config=f"capture: {{addresses: {{exclude: [{SERVER}]}}}}"))
        elif variant == "with an empty filter":
            stack.enter_context(empty_filter(where))
        yield


VARIANTS = ("without", "with an empty filter", "with the agent, the pod left out", "with the agent")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=int, default=3)
    options = arguments.parse_args()
    print(describe())
    found: dict[str, list[Load]] = {variant: [] for variant in VARIANTS}
    with stage() as where, sink(where):
        where.load(2)
        for number in range(options.rounds):
            turn = number % len(VARIANTS)
            for variant in VARIANTS[turn:] + VARIANTS[:turn]:
                with watched(where, variant):
                    found[variant].append(where.load(options.seconds))
    print(f"\nmedians of {options.rounds} alternated rounds of {options.seconds} s; ratios: medians over the rounds")
    rates = {variant: [load.per_s for load in loads] for variant, loads in found.items()}
    show("requests a second", rates, "must be 0.97 of without and 0.98 of the empty filter")
    show("ns of CPU of nginx and wrk a request", {variant: [load.cpu_us * 1000 for load in loads] for variant, loads in found.items()})


def show(title: str, found: dict[str, list[float]], must: str = "") -> None:
    print(f"{title:42}{'median':>9} {'least..greatest':>17}   of without   of the empty filter")
    for variant in VARIANTS:
        ratios = [[one / other for one, other in zip(found[variant], found[base], strict=True)] for base in VARIANTS[:2]]
        of_without, of_empty = (median(values) for values in ratios)
        note = f"   ({must})" if variant == VARIANTS[-1] and must else ""
        print(f"  {variant:40}{median(found[variant]):9,.0f} {spread(found[variant]):>17}   {of_without:10.3f}   {of_empty:19.3f}{note}")


if __name__ == "__main__":
    main()
