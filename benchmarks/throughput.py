"""What watching costs the watched: nginx with one worker behind a veth, wrk on kept connections, with the agent, with an empty filter, without.

    scripts/bench throughput         or: python benchmarks/throughput.py [--rounds N] [--seconds N]

The agent runs with default options and exports to a receiver that throws away. Rounds of the variants alternate, each beginning with another.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from benchmarks._stage import Stage, agent, empty_filter, sink, stage
from benchmarks.machine import describe, median, spread


@contextlib.contextmanager
def watched(where: Stage, variant: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if variant == "with the agent":
            stack.enter_context(agent(where))
        elif variant == "with an empty filter":
            stack.enter_context(empty_filter(where))
        yield


VARIANTS = ("without", "with an empty filter", "with the agent")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=float, default=3)
    options = arguments.parse_args()
    print(describe())
    found: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    with stage() as where, sink(where):
        where.load(2)
        for number in range(options.rounds):
            turn = number % len(VARIANTS)
            for variant in VARIANTS[turn:] + VARIANTS[:turn]:
                with watched(where, variant):
                    found[variant].append(where.load(options.seconds).per_s)
    print(f"\nrequests a second, medians of {options.rounds} alternated rounds of {options.seconds:g} s; ratios: medians over the rounds")
    for variant in VARIANTS:
        ratios = [[one / other for one, other in zip(found[variant], found[base], strict=True)] for base in VARIANTS[:2]]
        of_without, of_empty = (median(values) for values in ratios)
        must = "  (must be 0.97 and 0.98)" if variant == VARIANTS[2] else ""
        print(
            f"{variant:22}{median(found[variant]):9,.0f} ({spread(found[variant])})  {of_without:.3f} of without, {of_empty:.3f} of the empty filter{must}"
        )


if __name__ == "__main__":
    main()
