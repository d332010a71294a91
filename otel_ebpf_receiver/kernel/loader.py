"""Brings the kernel side up: a short-lived child compiles and loads it, the agent gets the descriptors, and works on them from then on.

The agent never imports bcc. `Compilation` is started before anything heavy is imported, so that both happen at the same time.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from otel_ebpf_receiver.errors import PreflightError
from otel_ebpf_receiver.kernel.assemble import ENTRY, KernelPart, ProgramText, assemble, bpf_directory
from otel_ebpf_receiver.kernel.programs import MAPS, Programs
from otel_ebpf_receiver.kernel.syscall import NR_BPF

INTERPRETER = "/usr/bin/python3"
"""The distribution's own: bcc is a package of it."""
TIMEOUT_S = 30.0
FLAGS = ("-nostdinc", "-Wno-unused-value", "-Wno-macro-redefined", "-Wno-pointer-sign", "-Wno-duplicate-decl-specifier", "-Wno-address-of-packed-member")
STDERR_KEPT = 4000
"""Characters of the compiler's messages that an error shows; a verifier log may be 20 MB."""


@dataclass(frozen=True, slots=True)
class KernelSource:
    """A source's C and the dtype of its records."""

    part: KernelPart
    record: np.dtype[np.void]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What is decided at compile time. `ring_bytes` is a power of two of pages; `parked` is the room of the hash transport, in records."""

    transport: str = "ring"
    ring_bytes: int = 16 << 20
    parked: int = 32768
    defines: Mapping[str, int | str] = field(default_factory=dict)

    def all_defines(self, sources: Sequence[KernelSource]) -> dict[str, int | str]:
        """Macro definitions for `sources`."""
        made: dict[str, int | str] = {}
        for source in sources:
            prefix = source.part.name.upper()
            made[f"{prefix}_RING_PAGES"] = max(self.ring_bytes // os.sysconf("SC_PAGE_SIZE"), 1)
            made[f"{prefix}_PARKED"] = self.parked
        if self.transport == "hash":
            made["TRANSPORT_HASH"] = 1
        return made | dict(self.defines)


class Compilation:
    """The child that compiles. `finish` gives the programs; `abort` ends the child at once. Both reap it."""

    def __init__(self, sources: Sequence[KernelSource], options: BuildOptions | None = None, *, interpreter: str = INTERPRETER) -> None:
        self._sources = tuple(sources)
        self._options = options or BuildOptions()
        if os.uname().machine not in NR_BPF:
            raise PreflightError(f"architecture: {os.uname().machine!r} is not supported; run the agent on x86-64")
        directory = bpf_directory()
        self._text: ProgramText = assemble((source.part for source in sources), self._options.all_defines(sources), directory)
        programs = [ENTRY, *(name for name in self._text.slots if name)]
        maps = [*MAPS, *(name for name in self._text.counters if name not in MAPS)]
        for source in self._sources:
            maps += [name for name in (source.part.records, source.part.pending[0], *source.part.maps) if name and name not in maps]
        request = {"text": self._text.text, "flags": FLAGS, "headers": str(directory), "programs": programs, "maps": maps}
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        child = Path(__file__).with_name("compile.py")
        try:
            self._child = subprocess.Popen(
                [interpreter, "-I", str(child), str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"},
                pass_fds=(theirs.fileno(),),
                cwd="/",
            )
        except OSError as error:
            self._link.close()
            raise PreflightError(f"{interpreter!r} cannot be started ({error.strerror}); install the packages python3 and python3-bpfcc") from error
        finally:
            theirs.close()
        self._messages = bytearray()
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request).encode())
            self._child.stdin.close()
        except BrokenPipeError:
            pass

    def abort(self) -> None:
        """Ends the child and reaps it. Safe twice."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
        self._child.wait()
        if self._child.stderr is not None:
            self._child.stderr.close()
        self._link.close()

    def finish(self, timeout_s: float = TIMEOUT_S) -> Programs:
        """The loaded programs. Raises PreflightError: no bcc, no privilege, a verifier that refused, or no end within `timeout_s`."""
        received: list[int] = []
        try:
            answer = self._receive(time.monotonic() + timeout_s, received)
            if "error" in answer:
                raise PreflightError(self._explain(answer))
            self._link.send(b".")
            self._child.wait(timeout=5)
        except BaseException:
            for fd in received:
                os.close(fd)
            raise
        finally:
            self.abort()
        names = [*answer["programs"], *answer["maps"]]
        return Programs(dict(zip(names, received, strict=True)), self._text, self._sources, self._options.transport, str(answer["bcc"]))

    def _receive(self, deadline: float, received: list[int]) -> dict[str, Any]:
        body = bytearray()
        wanted: dict[str, Any] | None = None
        assert self._child.stderr is not None
        stderr = self._child.stderr.fileno()
        watched = [self._link.fileno(), stderr]
        while wanted is None or ("programs" in wanted and len(received) < len(wanted["programs"]) + len(wanted["maps"])):
            ready, _, _ = select.select(watched, [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise PreflightError("the compiler did not end in time; is the machine overloaded? Start the agent again")
            if stderr in ready:
                piece = os.read(stderr, 65536)
                self._messages += piece
                del self._messages[: max(len(self._messages) - (1 << 20), 0)]
                if not piece:
                    watched.remove(stderr)
            if self._link.fileno() in ready:
                if wanted is None:
                    piece = self._link.recv(4 - len(body) if len(body) < 4 else 4 + int.from_bytes(body[:4], "little") - len(body))
                    body += piece
                else:
                    piece, fds, _, _ = socket.recv_fds(self._link, 1, 253)
                    received += fds
                if not piece:
                    raise PreflightError(f"the compiler died (exit {self._child.wait()}): {self._said()}")
                if wanted is None and len(body) > 4 and len(body) - 4 >= int.from_bytes(body[:4], "little"):
                    wanted = json.loads(body[4:])
        return wanted

    def _said(self) -> str:
        text = bytes(self._messages).decode("utf-8", "replace").strip()
        return text if len(text) <= STDERR_KEPT else text[:1000] + "\n[...]\n" + text[-(STDERR_KEPT - 1000) :]

    def _explain(self, answer: Mapping[str, Any]) -> str:
        if answer["error"] == "no bcc":
            return f"bcc: {INTERPRETER} cannot import it ({answer['detail']}); install the distribution's package python3-bpfcc (apt-get install python3-bpfcc)"
        said = self._said()
        if "Operation not permitted" in said or "Operation not permitted" in str(answer["detail"]):
            return (
                "the kernel refused the programs or maps (Operation not permitted); run as root, or with the capabilities BPF, PERFMON and NET_RAW"
                " (Linux before 5.11 also needs an unlimited memory lock: `ulimit -l unlimited`, or CAP_SYS_RESOURCE)"
            )
        return f"bcc {answer.get('bcc', '')}: {answer['detail']}: {said}"


def load(sources: Sequence[KernelSource], options: BuildOptions | None = None) -> Programs:
    """Compiles, loads and waits. Raises PreflightError."""
    return Compilation(sources, options).finish()
