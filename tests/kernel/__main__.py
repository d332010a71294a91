"""Runs cases or random conversations by hand: `python -m tests.kernel --help`. Prints the difference and the frames in their order."""

from __future__ import annotations

import argparse
import sys

from tests.kernel import harness, judge, loaded, randoms, suites
from tests.wire import cases, staging


def main() -> int:
    """Returns 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernel")
    parser.add_argument("--case", help="run the cases whose names hold this text", default=None)
    parser.add_argument("--mode", choices=cases.MODES, help="one mode instead of all")
    parser.add_argument("--at", type=int, help="with --mode cut: the place of the cut")
    parser.add_argument("--random", choices=sorted(suites.SUITES), help="a suite of random conversations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200, help="conversations")
    parser.add_argument("--only", type=int, help="one conversation of the seed")
    parser.add_argument("-v", "--verbose", action="store_true", help="the frames of what is wrong (of everything with --only or --at)")
    parser.add_argument("--most", type=int, default=10, help="complaints that are shown")
    options = parser.parse_args()
    with loaded.kernel() as kernel:
        wrong = randoms_by_hand(kernel, options) if options.random else cases_by_hand(kernel, options)
        print({name: value for name, value in kernel.counters().items() if value})
    return 1 if wrong else 0


def cases_by_hand(kernel: harness.Kernel, options: argparse.Namespace) -> int:
    """The chosen cases; the number of runs that went wrong."""
    wrong = count = 0
    for case in loaded.cases():
        if options.case and options.case not in case.name:
            continue
        for mode in staging.modes(case) if options.mode is None else [options.mode]:
            bad = []
            for at in staging.runs(case, mode) if options.at is None else [options.at]:
                complaints, play = judge.run(kernel, case, mode, at)
                count += 1
                if complaints:
                    bad.append((at, complaints, play))
            wrong += len(bad)
            if bad:
                at, complaints, play = bad[0]
                print(f"FAILED {case.where}: {case.name} [{mode} {at}] and {len(bad) - 1} more places {[b[0] for b in bad[1:12]]}")
                print("   " + "\n   ".join(complaints[: options.most]))
                if options.verbose:
                    print("\n".join(harness.transcript(flow) for flow in play.flows))
    print(f"{count} runs, {wrong} wrong")
    return wrong


def randoms_by_hand(kernel: harness.Kernel, options: argparse.Namespace) -> int:
    """One suite; the number of conversations that went wrong."""
    suite, shown = suites.SUITES[options.random], 0
    tally = randoms.Tally()
    for number in range(options.count) if options.only is None else [options.only]:
        verdict = randoms.run(kernel, suite, options.seed, number, tally)
        if verdict.complaints:
            shown += 1
            if shown <= options.most:
                print(f"FAILED {options.random} --seed {options.seed} --only {number}")
                print("   " + "\n   ".join(verdict.complaints[: options.most]))
        if options.verbose and (options.only is not None or (verdict.complaints and shown <= options.most)):
            print(harness.transcript(verdict.flow))
    print(tally)
    return tally.wrong


sys.exit(main())
