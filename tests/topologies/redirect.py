"""What some network plug-ins do: a program at the host end of a pod's pair that moves frames straight into another pod (bpf_redirect_peer)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator

from otel_ebpf_receiver.kernel.syscall import bpf
from tests.capture.namespaces import Namespace

_PROG_LOAD, _LINK_CREATE = 5, 28
_SCHED_CLS, _TCX_INGRESS = 3, 46
_REDIRECT_PEER = 155


@contextlib.contextmanager
def redirected(ns: Namespace, from_link: str, to_link: str) -> Iterator[None]:
    """Whatever arrives at `from_link` goes to the pod behind `to_link`, past that link. Linux 6.6 or newer (tcx)."""
    with ns.inside():
        source, target = socket.if_nametoindex(from_link), socket.if_nametoindex(to_link)
        program = _load(target)
        link = bpf(_LINK_CREATE, struct.pack("=IIII", program, source, _TCX_INGRESS, 0).ljust(64, b"\0"))
    try:
        yield
    finally:
        os.close(link)
        os.close(program)


def _load(target: int) -> int:
    """r1 = target; r2 = 0; call bpf_redirect_peer; exit."""
    code = b"".join(
        struct.pack("=BBhi", *one) for one in ((0xB7, 1, 0, target), (0xB7, 2, 0, 0), (0x85, 0, 0, _REDIRECT_PEER), (0x95, 0, 0, 0))
    )
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    attribute = struct.pack("=IIQQ", _SCHED_CLS, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence))
    return bpf(_PROG_LOAD, attribute.ljust(120, b"\0"))
