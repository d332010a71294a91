"""What the verifier makes of the kernel programs: `python benchmarks/verifier.py`, as root, prints a line per program and choice of options.

Compiles with the system's bcc, or takes what was compiled before (`--keep FOLDER`, in the form of the agent's own cache); loads each program by
itself with the verifier's statistics on. Exit 1 when one is refused; then the end of the verifier's own log is shown. `scripts/kernels` runs it
on every kernel; `python -m tests.kernels.table` makes the tables of docs/kernels.md from what it prints.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import platform
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from otel_ebpf_receiver.agent.load import kernel_side
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.kernel.assemble import KernelSource, ProgramText, assemble, bpf_directory
from otel_ebpf_receiver.kernel.bytecode import COMPILER, Bytecode, Cache, Code, raise_memory_lock, verify
from otel_ebpf_receiver.kernel.loader import INTERPRETER, BuildOptions, compile_request
from otel_ebpf_receiver.kernel.syscall import bpf

MAP_CREATE = 0
STATISTICS, WHOLE_LOG = 4, 1
"""BPF_LOG_STATS (5.2): messages and totals, no states; BPF_LOG_LEVEL1: the path to the refusal."""
LOG_BYTES, WHOLE_LOG_BYTES = 64 << 10, 256 << 20
"""Before 6.4 a log that does not fit keeps its beginning; a refusal stands at its end."""
LOG_LINES = 30
LIMIT = 1_000_000
"""Instructions that the verifier processes before it gives up (BPF_COMPLEXITY_LIMIT_INSNS)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A configuration under which the programs are looked at, as the agent compiles them for it."""

    name: str
    config: Config

    @property
    def source(self) -> KernelSource:
        return kernel_side(self.config)[0]

    @property
    def options(self) -> BuildOptions:
        return kernel_side(self.config)[1]

    @property
    def text(self) -> ProgramText:
        return assemble((self.source.part,), self.options.all_defines((self.source,)), bpf_directory())


@dataclass(frozen=True, slots=True)
class Measure:
    """One program: instructions, instructions that the verifier processed, milliseconds of the call that loads it. `refusal`: the end of its log."""

    choice: str
    program: str
    instructions: int
    processed: int
    load_ms: float
    refusal: str = ""


def choices() -> tuple[Choice, ...]:
    """The default, and what costs the verifier most."""
    default = Config()
    headers = dataclasses.replace(default.http, headers=("x-forwarded-for", "content-type", "traceparent", "x-b3-traceid"))
    return (
        Choice("default", default),
        Choice("hash transport", dataclasses.replace(default, capture=dataclasses.replace(default.capture, transport="hash"))),
        Choice("4 headers", dataclasses.replace(default, http=headers)),
        Choice("target 1024, 4 headers", dataclasses.replace(default, http=dataclasses.replace(headers, target_bytes=1024))),
    )


def compiled(choice: Choice, kept: Cache | None = None) -> Bytecode:
    """The programs of a choice, compiled as the agent compiles them; from `kept`, and put there, if given. Raises RuntimeError."""
    text = choice.text
    request = compile_request(text, bpf_directory())
    key = Cache.key(request)
    if kept and (found := kept.get(key)):
        return found
    child = subprocess.run([INTERPRETER, "-I", str(COMPILER)], input=json.dumps(request).encode(), capture_output=True, check=False)
    answer = json.loads(child.stdout or '{"error": "died"}')
    if "error" in answer:
        raise RuntimeError(f"{answer}: {child.stderr[-2000:].decode(errors='replace')}")
    if kept:
        kept.put(key, answer)
    return Bytecode.from_answer(answer)


def _load(name: str, code: Code, fds: Mapping[str, int], level: int, room: int) -> tuple[int, str, float]:
    """Descriptor (negative: refused), log, seconds."""
    log = ctypes.create_string_buffer(room)
    start = time.perf_counter()
    try:
        fd = verify(name, code, fds, level, log)
    except OSError as error:
        return -1, f"{log.value.decode(errors='replace')}{error.strerror}", time.perf_counter() - start
    return fd, log.value.decode(errors="replace"), time.perf_counter() - start


def verified(choice: str, name: str, code: Code, fds: Mapping[str, int]) -> tuple[Measure, int]:
    """Loads one program. Its descriptor is the caller's, negative where it is refused."""
    fd, log, seconds = _load(name, code, fds, STATISTICS, LOG_BYTES)
    found = re.search(r"processed (\d+) insns", log)
    refusal = ""
    if fd < 0:
        said = _load(name, code, fds, WHOLE_LOG, WHOLE_LOG_BYTES)[1]
        refusal = "\n".join([log.strip(), "...", *said.splitlines()[-LOG_LINES:]])
    return Measure(choice, name, len(code.instructions) // 8, int(found[1]) if found else 0, seconds * 1000, refusal), fd


@contextmanager
def descriptors() -> Iterator[dict[str, int]]:
    """Descriptors by name, closed at the end: the caller fills it, and may take some or all out."""
    fds: dict[str, int] = {}
    try:
        yield fds
    finally:
        for fd in fds.values():
            os.close(fd)


def measured(choice: str, bytecode: Bytecode, fds: dict[str, int]) -> Iterator[Measure]:
    """All programs of one choice, one by one. `fds` gets the descriptors of maps and programs, under the names by which `Programs` takes them."""
    raise_memory_lock()
    for name, shape in bytecode.maps.items():
        fds[name] = bpf(MAP_CREATE, struct.pack("=IIIIIII16s", *shape, 0, 0, name.encode()[:15]))
    for name, code in bytecode.programs.items():
        measure, fd = verified(choice, name, code, fds)
        if fd >= 0:
            fds[f"program {name}"] = fd
        yield measure


def machine() -> Mapping[str, str]:
    """Where it was measured."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"kernel": platform.release(), "processor": model[1] if model else platform.machine()}


def report(choice: Choice, fds: dict[str, int], kept: Cache | None = None) -> Iterator[tuple[str, Measure | None]]:
    """Lines to print; those of programs with what was measured. `fds` as of `measured`."""
    start = time.perf_counter()
    bytecode = compiled(choice, kept)
    about = machine()
    made = f"compiled or found in {time.perf_counter() - start:.1f} s"
    yield f"{about['kernel']}, bcc {bytecode.bcc}, {about['processor']}; {choice.name}: {made}", None
    for measure in measured(choice.name, bytecode, fds):
        line = f"  {measure.program:12} {measure.instructions:6} instructions {measure.processed:8} processed of {LIMIT} {measure.load_ms:8.1f} ms"
        yield f"{line} REFUSED\n{measure.refusal}" if measure.refusal else line, measure


def main() -> int:
    """1 when a program is refused."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--choice", action="append", help="only this choice of options", choices=[choice.name for choice in choices()])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where compiled programs are kept, and taken from")
    options = parser.parse_args()
    refused = 0
    for choice in choices():
        if options.choice and choice.name not in options.choice:
            continue
        with descriptors() as fds:
            for line, measure in report(choice, fds, Cache(options.keep) if options.keep else None):
                refused += bool(measure and measure.refusal)
                if not options.json:
                    print(line, flush=True)
                elif measure:
                    print(json.dumps({**machine(), **dataclasses.asdict(measure)}), flush=True)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
