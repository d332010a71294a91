"""What a program's functions are called and look like, in BTF: without it the kernel verifies a function again at every call.

Made here, of three kinds of types; the kernel's own BTF is not asked for (https://docs.kernel.org/bpf/btf.html, include/uapi/linux/btf.h).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator, Sequence

from otel_ebpf_receiver.kernel.syscall import bpf

BTF_LOAD = 18
MAGIC, VERSION, HEADER_BYTES = 0xEB9F, 1, 24
INT, FUNC, FUNC_PROTO = 1, 12, 13
GLOBAL = 1
"""Linkage of what is verified by itself."""
PROTOTYPE, FIRST_FUNCTION = 2, 3
"""Numbers of the types below; 0 is void."""
BEGIN_BYTES = 8
"""Of a `struct bpf_func_info`."""


def types(names: Sequence[str]) -> bytes:
    """Functions of these names that take nothing and return an int."""
    strings, offsets = bytearray(b"\0int\0"), []
    for name in names:
        offsets.append(len(strings))
        strings += name.encode() + b"\0"
    words = struct.pack("=IIII", 1, INT << 24, 4, 32) + struct.pack("=III", 0, FUNC_PROTO << 24, 1)
    words += b"".join(struct.pack("=III", offset, FUNC << 24 | GLOBAL, PROTOTYPE) for offset in offsets)
    header = struct.pack("=HBBIIIII", MAGIC, VERSION, 0, HEADER_BYTES, 0, len(words), len(words), len(strings))
    return header + words + bytes(strings)


def begins(*instructions: int) -> bytes:
    """Where each function of `types` begins."""
    return b"".join(struct.pack("=II", at, FIRST_FUNCTION + number) for number, at in enumerate(instructions))


@contextlib.contextmanager
def described(names: Sequence[str]) -> Iterator[int]:
    """A descriptor of the types of a program and its functions; 0 where there are no functions. Raises OSError."""
    if len(names) < 2:
        yield 0
        return
    told = types(names)
    buffer = ctypes.create_string_buffer(told, len(told))
    fd = bpf(BTF_LOAD, struct.pack("=QQIII", ctypes.addressof(buffer), 0, len(told), 0, 0))
    try:
        yield fd
    finally:
        os.close(fd)
