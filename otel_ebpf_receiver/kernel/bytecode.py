"""Compiled programs as data, and how they get into the kernel: maps are made, instructions get their descriptors, the verifier has its
say.

Kept in a cache folder by the hash of the C text, so that only the first start of a version pays for LLVM. Only root's own files are
believed.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import hashlib
import json
import os
import resource
import stat
import struct
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_ebpf_receiver.errors import PreflightError
from otel_ebpf_receiver.kernel import btf
from otel_ebpf_receiver.kernel.syscall import bpf

MAP_CREATE, PROG_LOAD = 0, 5
SOCKET_FILTER = 1
LOG_BYTES = 1 << 20
LOG_SHOWN = 1500
VERIFIERS = 2
"""Programs that are verified at once."""
COMPILER = Path(__file__).with_name("compile.py")
"""What the child runs."""
CACHE = Path("/var/cache/otel-ebpf-receiver")


@dataclass(frozen=True, slots=True)
class Code:
    """One program: its instructions, which of them name which map, and where the functions begin that it calls."""

    instructions: bytes
    maps: tuple[tuple[int, str], ...]
    functions: tuple[tuple[int, str], ...]

    def patched(self, fds: Mapping[str, int]) -> bytes:
        """The instructions with the descriptors of their maps."""
        patched = bytearray(self.instructions)
        for index, table in self.maps:
            struct.pack_into("<i", patched, index * 8 + 4, fds[table])
        return bytes(patched)


def _places(told: Iterable[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
    return tuple((int(at), str(name)) for at, name in told)


@dataclass(frozen=True, slots=True)
class Bytecode:
    """Programs, and the shape of each map: type, key size, value size, entries, flags."""

    bcc: str
    maps: Mapping[str, tuple[int, int, int, int, int]]
    programs: Mapping[str, Code]

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Bytecode:
        """From what the compiling child printed. Raises KeyError, ValueError or TypeError when it is something else."""
        maps = {name: tuple(int(word) for word in shape) for name, shape in answer["maps"].items()}
        programs = {
            name: Code(base64.b64decode(one["code"], validate=True), _places(one["maps"]), _places(one["functions"]))
            for name, one in answer["programs"].items()
        }
        return cls(str(answer["bcc"]), maps, programs)  # type: ignore[arg-type]


def raise_memory_lock() -> None:
    """Before Linux 5.11 maps count against RLIMIT_MEMLOCK; raising it needs CAP_SYS_RESOURCE."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _create_map(name: str, shape: tuple[int, int, int, int, int]) -> int:
    kind, key, value, entries, flags = shape
    try:
        return bpf(MAP_CREATE, struct.pack("=IIIIIII16s", kind, key, value, entries, flags, 0, 0, name.encode()[:15]))
    except OSError as error:
        raise PreflightError(f"map {name!r}: {_why(error)}") from error


def _why(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            "the kernel refused it (Operation not permitted); run as root, or with the capabilities BPF, PERFMON and NET_RAW"
            " (Linux before 5.11 also needs an unlimited memory lock: `ulimit -l unlimited`, or CAP_SYS_RESOURCE)"
        )
    if error.errno == errno.ENOMEM:
        return f"{error.strerror}; is there enough memory in the agent's control group?"
    return f"the kernel refused it ({error.strerror}); `otel-ebpf-receiver preflight` tells what it lacks"


def verify(name: str, code: Code, fds: Mapping[str, int], level: int = 0, log: ctypes.Array[ctypes.c_char] | None = None) -> int:
    """Descriptor of the loaded program. Raises OSError; `log` gets what the verifier says."""
    loaded = code.patched(fds)
    instructions, licence = ctypes.create_string_buffer(loaded, len(loaded)), ctypes.create_string_buffer(b"GPL")
    size, at = (len(log), ctypes.addressof(log)) if log is not None else (0, 0)
    head = (SOCKET_FILTER, len(loaded) // 8, ctypes.addressof(instructions), ctypes.addressof(licence), level, size, at)
    with btf.described((name, *(function for _, function in code.functions))) as types:
        begins = ctypes.create_string_buffer(btf.begins(0, *(at for at, _ in code.functions)))
        functions = (types, btf.BEGIN_BYTES, ctypes.addressof(begins), 1 + len(code.functions)) if types else (0, 0, 0, 0)
        return bpf(PROG_LOAD, struct.pack("=IIQQIIQII16sIIIIQI", *head, 0, 0, name.encode()[:15], 0, 0, *functions))


def _load_program(name: str, code: Code, fds: Mapping[str, int]) -> int:
    try:
        return verify(name, code, fds)
    except OSError as first:
        log = ctypes.create_string_buffer(LOG_BYTES)
        with contextlib.suppress(OSError):
            return verify(name, code, fds, 1, log)
        said = log.value.decode("utf-8", "replace")
        if first.errno == errno.EPERM or not said:
            raise PreflightError(f"program {name!r}: {_why(first)}") from first
        raise PreflightError(
            f"program {name!r}: the verifier refused it ({first.strerror}); it needs the capabilities BPF and PERFMON, and the JIT compiler"
            f" (sysctl net.core.bpf_jit_enable=1). It says: ...{said[-LOG_SHOWN:]}"
        ) from first


def load(bytecode: Bytecode) -> dict[str, int]:
    """Descriptors of all maps and programs by name. Raises PreflightError, and then leaves none open."""
    raise_memory_lock()
    fds: dict[str, int] = {}
    try:
        for name, shape in bytecode.maps.items():
            fds[name] = _create_map(name, shape)
        # The verifier works on several programs at once, the longest first: it takes half of the time of a start.
        with ThreadPoolExecutor(VERIFIERS) as pool:
            names = sorted(bytecode.programs, key=lambda name: -len(bytecode.programs[name].instructions))
            loading = {name: pool.submit(_load_program, name, bytecode.programs[name], fds) for name in names}
        errors = []
        for name, future in loading.items():
            if error := future.exception():
                errors.append(error)
            else:
                fds[f"program {name}"] = future.result()
        if errors:
            raise errors[0]
    except BaseException:
        for fd in fds.values():
            os.close(fd)
        raise
    return fds


class Cache:
    """Compiled programs on disk, one file each, at most `KEPT` of them."""

    KEPT = 8

    def __init__(self, folder: Path = CACHE) -> None:
        self._folder = folder

    @staticmethod
    def key(request: Mapping[str, Any]) -> str:
        """Name of the file for a compile request, as the compiler that there is answers it."""
        return hashlib.sha256(json.dumps([request["text"], request["flags"]]).encode() + COMPILER.read_bytes()).hexdigest()

    def get(self, key: str) -> Bytecode | None:
        """What was kept, if it is ours and whole."""
        try:
            with (self._folder / f"{key}.json").open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o022:
                    return None
                return Bytecode.from_answer(json.load(file))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keeps an answer; where that is not possible (a read-only file system), nothing happens."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._folder.stat().st_uid != os.geteuid():
                return
            with tempfile.NamedTemporaryFile("w", dir=self._folder, delete=False, suffix=".part") as file:
                json.dump(answer, file)
            os.replace(file.name, self._folder / f"{key}.json")
            kept = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in kept[self.KEPT :]:
                old.unlink(missing_ok=True)
        except OSError:
            return
