"""What every other kernel must do, in one process: verify the programs, run the cases and random conversations, see live exchanges.

`python -m tests.kernels.stage python -m tests.kernels.inside --compiled FOLDER…` (the folders of `benchmarks/verifier.py --keep`, one per
compiler). It needs the capabilities BPF, NET_RAW and PERFMON and no other. Ends with 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import verifier
from otel_ebpf_receiver.kernel.bytecode import Cache
from otel_ebpf_receiver.kernel.loader import Compilation
from otel_ebpf_receiver.kernel.preflight import capabilities
from otel_ebpf_receiver.kernel.programs import Programs
from otel_ebpf_receiver.sources.http.record import Direction
from tests.kernel import judge, loaded, randoms, suites
from tests.kernel.harness import Kernel
from tests.kernels.stage import DEVICE, HERE, PORT, THERE

PATIENCE_S = 600.0
"""The loader asks for bcc also where its work is at hand: half a minute is not enough for that on a busy emulated CPU."""
EXCHANGES = 20
CONVERSATIONS = 40
SEED = 5
RANDOM = ("whole", "late", "unseen")
DEFAULT, HASH, _, LARGEST = verifier.choices()
"""What is looked at here; the other choices are verified on the machine that starts the guest (scripts/kernels)."""


def refusals(choice: verifier.Choice, kept: Cache, fds: dict[str, int]) -> int:
    """Programs of a choice that the verifier refuses. `fds` gets the others, and the maps."""
    found = 0
    for line, measure in verifier.report(choice, fds, kept):
        print(line, flush=True)
        found += bool(measure and measure.refusal)
    return found


def wrong_cases(kernel: Kernel) -> int:
    """Every case, whole."""
    cases, wrong = loaded.cases(), 0
    for case in cases:
        complaints, _ = judge.run(kernel, case, "whole")
        if complaints:
            wrong += 1
            print(f"FAILED {case.where}: {case.name}\n   " + "\n   ".join(complaints[:10]))
    print(f"{len(cases)} cases, {wrong} wrong", flush=True)
    return wrong


def wrong_conversations(kernel: Kernel) -> int:
    """Random conversations: with nothing lost, with segments that come late, with segments that the tap misses."""
    wrong = 0
    for kind in RANDOM:
        tally = randoms.Tally()
        for number in range(CONVERSATIONS):
            verdict = randoms.run(kernel, suites.SUITES[kind], SEED, number, tally)
            if verdict.complaints:
                print(f"FAILED {kind} --seed {SEED} --only {number}\n   " + "\n   ".join(verdict.complaints[:10]))
        print(f"{kind}: {tally}", flush=True)
        wrong += tally.wrong
    return wrong


def missed_live(programs: Programs) -> int:
    """Exchanges on one kept connection over the pair of `stage` that do not come out of the kernel."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as tap:
        programs.attach(tap)
        tap.bind((DEVICE, 3))
        connection = http.client.HTTPConnection(THERE, PORT, source_address=(HERE, 0), timeout=60)
        for number in range(EXCHANGES):
            connection.request("GET", f"/?{number}")
            connection.getresponse().read()
        connection.close()
        time.sleep(0.2)
        records = programs.transports["http"].drain()
    good = records[(records["status"] == 200) & (records["direction"] == Direction.LEFT) & (records["flags"] == 0)]
    print(f"live over veth: {len(good)} of {EXCHANGES} exchanges, {len(records)} records", flush=True)
    return abs(EXCHANGES - len(good)) + len(records) - len(good)


def one_compiler(folder: Path, *, is_first: bool) -> int:
    """All of it with the programs of one compiler; of a second compiler less. A verifier takes long on an emulated CPU, so what it has passed is
    what the cases run on.
    """
    kept, name = Cache(folder), folder.name
    with verifier.descriptors() as fds:
        wrong = _timed(f"{name}: verifier, largest", partial(refusals, LARGEST, kept, fds))
    with verifier.descriptors() as fds:
        if refused := _timed(f"{name}: verifier, default", partial(refusals, DEFAULT, kept, fds)):
            return wrong + refused
        bcc = verifier.compiled(DEFAULT, kept).bcc
        # A copy: the programs own their descriptors from now on.
        programs = Programs(dict(fds), DEFAULT.text, [DEFAULT.source], DEFAULT.options.transport, bcc)
        fds.clear()
    with programs:
        kernel = Kernel(programs)
        wrong += _timed(f"{name}: cases", partial(wrong_cases, kernel))
        if is_first:
            wrong += _timed(f"{name}: random conversations", partial(wrong_conversations, kernel))
        wrong += _timed(f"{name}: live", partial(missed_live, programs))
    if is_first:
        # The third choice, as the agent itself loads it.
        with Compilation([HASH.source], HASH.options, cache=kept).finish(PATIENCE_S) as programs:
            wrong += _timed(f"{name}: live, hash transport", partial(missed_live, programs))
    return wrong


def _timed(name: str, step: Callable[[], int]) -> int:
    start = time.perf_counter()
    wrong = step()
    print(f"-- {name}: {'FAILED' if wrong else 'ok'}, {time.perf_counter() - start:.0f} s", flush=True)
    return wrong


def main() -> int:
    """1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--compiled", type=Path, action="append", required=True, metavar="FOLDER", help="programs of one compiler")
    options = parser.parse_args()
    print("capabilities:", ", ".join(sorted(capabilities(Path("/proc/self/status").read_text()))), flush=True)
    wrong = 0
    for number, folder in enumerate(options.compiled):
        wrong += one_compiler(folder, is_first=number == 0)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
