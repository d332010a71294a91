"""Brings the kernel side up: a short-lived child compiles it, unless that was done before; the agent loads it, and works on its
descriptors from then on.

The agent never imports bcc. `Compilation` is started before anything heavy is imported, so that both happen at the same time.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_ebpf_receiver.errors import PreflightError
from otel_ebpf_receiver.kernel.assemble import FUNCTION, GATE, KernelSource, ProgramText, assemble, bpf_directory
from otel_ebpf_receiver.kernel.bytecode import COMPILER, Bytecode, Cache
from otel_ebpf_receiver.kernel.bytecode import load as load_bytecode
from otel_ebpf_receiver.kernel.syscall import NR_BPF

if TYPE_CHECKING:
    from otel_ebpf_receiver.kernel.programs import Programs

INTERPRETER = "/usr/bin/python3"
"""The distribution's own: bcc is a package of it."""
TIMEOUT_S = 30.0
FLAGS = (
    # bcc asks for debug information, of which nothing is used: without it the same instructions take a sixth less time and 11 MiB less.
    "-g0",
    "-nostdinc",
    "-Wno-unused-value",
    "-Wno-macro-redefined",
    "-Wno-pointer-sign",
    "-Wno-duplicate-decl-specifier",
    "-Wno-address-of-packed-member",
)
STDERR_KEPT = 4000
"""Characters of the compiler's messages that an error shows; a verifier log may be 20 MB."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What is decided at compile time. `ring_bytes` is a power of two of pages; `parked` is the room of the hash transport, in
    records.
    """

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


def compile_request(text: ProgramText, headers: Path) -> dict[str, Any]:
    """What the child that compiles is asked (compile.py)."""
    programs = [*(name for name in text.slots if name), GATE]
    return {
        "text": text.text,
        "flags": FLAGS,
        "headers": str(headers),
        "programs": programs,
        "functions": text.functions,
        "first": FUNCTION,
    }


class _Loading:
    """Loads programs on a thread of its own; `take` waits for them, `discard` closes them."""

    def __init__(self, bytecode: Bytecode) -> None:
        self._fds: dict[str, int] = {}
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(bytecode,), name="loader")
        self._thread.start()

    def _run(self, bytecode: Bytecode) -> None:
        try:
            self._fds = load_bytecode(bytecode)
        except Exception as error:  # told by `take`, on the thread that asked
            self._error = error

    def take(self) -> dict[str, int]:
        """The descriptors, the caller's from now on. Raises what loading raised."""
        self._thread.join()
        if self._error:
            raise self._error
        fds, self._fds = self._fds, {}
        return fds

    def discard(self) -> None:
        """Closes what was not taken. Safe twice."""
        self._thread.join()
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)


class Compilation:
    """The programs in the making: from the cache, or by a child that compiles. `finish` loads them; `abort` ends the child at once.
    Both reap it.
    """

    def __init__(
        self,
        sources: Sequence[KernelSource],
        options: BuildOptions | None = None,
        *,
        interpreter: str = INTERPRETER,
        cache: Cache | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._options = options or BuildOptions()
        if os.uname().machine not in NR_BPF:
            raise PreflightError(f"architecture: {os.uname().machine!r} is not supported; run the agent on x86-64")
        directory = bpf_directory()
        self._text: ProgramText = assemble((source.part for source in sources), self._options.all_defines(sources), directory)
        request = compile_request(self._text, directory)
        self._cache = cache or Cache()
        self._key = Cache.key(request)
        self._kept = self._cache.get(self._key)
        self._interpreter = interpreter
        # bcc is asked for even when its work is at hand: the agent must not come to depend on a cache.
        self._child = self._start(["check"] if self._kept else [])
        self._output, self._messages = bytearray(), bytearray()
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(b"" if self._kept else json.dumps(request).encode())
            self._child.stdin.close()
        except BrokenPipeError:
            pass
        # The verifier takes half a second: it works while the caller imports. After the child, for a process with threads must not fork.
        self._loading = _Loading(self._kept) if self._kept else None

    @property
    def is_kept(self) -> bool:
        """Whether an earlier start compiled the same, so that nothing need be."""
        return self._kept is not None

    def _start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [self._interpreter, "-I", str(COMPILER), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"},
                cwd="/",
            )
        except OSError as error:
            raise PreflightError(
                f"{self._interpreter!r} cannot be started ({error.strerror}); install the packages python3 and python3-bpfcc"
            ) from error

    def abort(self) -> None:
        """Ends the child and reaps it, and closes what was loaded meanwhile. Safe twice."""
        self._end_child()
        if self._loading:
            self._loading.discard()

    def _end_child(self) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
        self._child.wait()
        for pipe in (self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()

    def finish(self, timeout_s: float = TIMEOUT_S) -> Programs:
        """The loaded programs. Raises PreflightError: no bcc, no privilege, a verifier that refused, or no end within `timeout_s`."""
        try:
            answer = self._receive(time.monotonic() + timeout_s)
            self._end_child()
            return self._load(answer)
        except BaseException:
            self.abort()
            raise

    def _load(self, answer: dict[str, Any]) -> Programs:
        if answer.get("error") == "no bcc" or answer.get("found") is False:
            raise PreflightError(
                f"bcc: {self._interpreter} cannot import it; install the distribution's package (apt-get install python3-bpfcc)"
            )
        if "error" in answer:
            raise PreflightError(self._explain(answer))
        from otel_ebpf_receiver.kernel.programs import Programs  # needs numpy, which is imported while the programs are loaded

        kept = self._kept or Bytecode.from_answer(answer)
        fds = self._loading.take() if self._loading else load_bytecode(kept)
        if not self._kept:
            self._cache.put(self._key, answer)
        return Programs(fds, self._text, self._sources, self._options.transport, kept.bcc)

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        sinks = {self._child.stdout.fileno(): self._output, self._child.stderr.fileno(): self._messages}
        while sinks:
            ready, _, _ = select.select(list(sinks), [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise PreflightError("the compiler did not end in time; is the machine overloaded? Start the agent again")
            for fd in ready:
                piece = os.read(fd, 1 << 20)
                if not piece:
                    del sinks[fd]
                else:
                    sinks[fd] += piece
            del self._messages[: max(len(self._messages) - (1 << 20), 0)]
        try:
            found: dict[str, Any] = json.loads(self._output)
        except ValueError as error:
            raise PreflightError(f"the compiler died (exit {self._child.wait()}): {self._said()}") from error
        return found

    def _said(self) -> str:
        text = bytes(self._messages).decode("utf-8", "replace").strip()
        return text if len(text) <= STDERR_KEPT else text[:1000] + "\n[...]\n" + text[-(STDERR_KEPT - 1000) :]

    def _explain(self, answer: Mapping[str, Any]) -> str:
        said = self._said()
        if "Operation not permitted" in said or "Operation not permitted" in str(answer["detail"]):
            return (
                "the kernel refused the maps (Operation not permitted); run as root, or with the capabilities BPF, PERFMON and NET_RAW"
                " (Linux before 5.11 also needs an unlimited memory lock: `ulimit -l unlimited`, or CAP_SYS_RESOURCE)"
            )
        return f"bcc {answer.get('bcc', '')}: {answer['detail']}: {said}"


def load(sources: Sequence[KernelSource], options: BuildOptions | None = None, *, cache: Cache | None = None) -> Programs:
    """Compiles, loads and waits. Raises PreflightError."""
    return Compilation(sources, options, cache=cache).finish()
