"""Instructions and the verifier's work per program, on this kernel: a row each, for the table in docs/kernels.md.

Run: `scripts/bench verifier`, or in a virtual machine by `scripts/kernels`. Loads each program once more with the verifier's statistics.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
import time

from otel_ebpf_receiver.kernel.bytecode import PROG_LOAD, SOCKET_FILTER, Cache
from otel_ebpf_receiver.kernel.loader import Compilation
from otel_ebpf_receiver.kernel.programs import Programs
from otel_ebpf_receiver.kernel.syscall import bpf
from otel_ebpf_receiver.sources.http.kernel import kernel_source

STATISTICS = 4
"""BPF_LOG_STATS."""


class _Keeping(Cache):
    """Remembers what was compiled or kept."""

    found = None

    def get(self, key: str):  # type: ignore[no-untyped-def]
        """As its parent's."""
        self.found = super().get(key)
        return self.found


def measured(code: bytes, references: tuple[tuple[int, str], ...], programs: Programs) -> tuple[int, int, float]:
    """(instructions, instructions processed by the verifier, milliseconds of CPU) of one program."""
    patched = bytearray(code)
    for index, table in references:
        struct.pack_into("<i", patched, index * 8 + 4, programs.map(table).fd)
    text = ctypes.create_string_buffer(bytes(patched), len(patched))
    licence, log = ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(1 << 16)
    head = (SOCKET_FILTER, len(code) // 8, ctypes.addressof(text), ctypes.addressof(licence), STATISTICS, len(log), ctypes.addressof(log))
    begin = time.thread_time()
    fd = bpf(PROG_LOAD, struct.pack("=IIQQIIQ", *head))
    took = (time.thread_time() - begin) * 1e3
    os.close(fd)
    found = re.search(r"processed (\d+) insns", log.value.decode())
    return len(code) // 8, int(found[1]) if found else 0, took


def main() -> None:
    """Prints the rows."""
    Compilation([kernel_source()]).finish().close()
    cache = _Keeping()
    with Compilation([kernel_source()], cache=cache).finish() as programs:
        if cache.found is None:
            raise SystemExit("the compiled programs cannot be kept here (/var/cache/otel-ebpf-receiver); nothing to measure")
        print(f"verifier on Linux {platform.release()}, bcc {programs.bcc_version}")
        total = 0.0
        for name, (code, references) in cache.found.programs.items():
            instructions, processed, took = measured(code, references, programs)
            total += took
            print(f"  {name:12} {instructions:5} instructions {processed:8} processed {took:7.0f} ms")
        print(f"  {'all':12} {'':33} {total:13.0f} ms")


if __name__ == "__main__":
    main()
