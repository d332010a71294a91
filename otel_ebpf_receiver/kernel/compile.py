"""Compiles the kernel side with bcc: runs as a child under the distribution's interpreter, and is the only file that imports bcc.

Standard library besides, and nothing of this package: it is started as `python3 -I compile.py`. It reads one JSON request from
standard input, prints one JSON
answer (instructions, and which map each of them names), and ends: LLVM's memory goes with it. `python3 -I compile.py check` only tells
bcc's version.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import resource
import struct
import sys
from typing import Any

LOAD_MAP, PSEUDO_MAP_FD = 0x18, 1
"""BPF_LD | BPF_IMM | BPF_DW with src_reg BPF_PSEUDO_MAP_FD: the instruction that names a map."""
CALL, PSEUDO_CALL = 0x85, 1
"""BPF_JMP | BPF_CALL; with src_reg BPF_PSEUDO_CALL it calls a function by its distance, else a helper by its number."""


DECLARATION = re.compile(r"^BPF_(?:TABLE\((?:[^,]+,){3}\s*(\w+)|\w+\((\w+))", re.MULTILINE)
"""A map's declaration, by which bcc makes it: BPF_TABLE(type, key, value, name, size), or BPF_TYPE(name, ...)."""


def _raise_memory_lock() -> None:
    """Before Linux 5.11 maps count against RLIMIT_MEMLOCK; raising it needs CAP_SYS_RESOURCE."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _tables(bcc: Any, module: Any, text: str) -> dict[int, str]:
    """Names of all maps by the descriptor that instructions hold."""
    found = {}
    for match in DECLARATION.finditer(text):
        name = match[1] or match[2]
        fd = bcc.libbcc.lib.bpf_table_fd(module, name.encode())
        if fd >= 0:
            found[fd] = name
    return found


def linked(code: bytes, functions: list[str], codes: dict[str, bytes], first: int) -> tuple[bytes, list[tuple[int, str]]]:
    """The program with each function that it calls behind it, and where those begin. `first`: the number of `functions[0]` in a call."""
    whole, begins, index = bytearray(code), {}, 0
    while index < len(whole) // 8:  # grows: functions call functions
        opcode, registers, _, value = struct.unpack_from("<BBhi", whole, index * 8)
        if opcode == CALL and registers == 0 and value >= first:
            name = functions[value - first]
            if name not in begins:
                begins[name] = len(whole) // 8
                whole += codes[name]
            struct.pack_into("<BBhi", whole, index * 8, CALL, PSEUDO_CALL << 4, 0, begins[name] - index - 1)
        index += 1
    return bytes(whole), [(at, name) for name, at in begins.items()]


def _references(code: bytes, tables: dict[int, str]) -> list[tuple[int, str]]:
    """(index of the instruction, name of the map) for each that names one."""
    found = []
    for index in range(len(code) // 8):
        opcode, registers, _, value = struct.unpack_from("<BBhi", code, index * 8)
        if opcode == LOAD_MAP and registers >> 4 == PSEUDO_MAP_FD:
            found.append((index, tables[value]))
    return found


def compiled(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request: an error, or the programs."""
    os.environ["BCC_KERNEL_SOURCE"] = request["headers"]
    try:
        import bcc
    except ImportError as error:
        return {"error": "no bcc", "detail": str(error)}
    _raise_memory_lock()
    try:
        program = bcc.BPF(text=request["text"], cflags=request["flags"])
        tables = _tables(bcc, program.module, request["text"])
        codes = {name: program.dump_func(name) for name in [*request["programs"], *request["functions"]]}
    except Exception as error:
        return {"error": "not compiled", "detail": str(error), "bcc": bcc.__version__}
    return {
        "bcc": bcc.__version__,
        "maps": {name: _shape(fd) for fd, name in tables.items()},
        "programs": {
            name: _described(*linked(codes[name], request["functions"], codes, request["first"]), tables) for name in request["programs"]
        },
    }


def _described(code: bytes, functions: list[tuple[int, str]], tables: dict[int, str]) -> dict[str, Any]:
    return {"code": base64.b64encode(code).decode(), "maps": _references(code, tables), "functions": functions}


def _shape(fd: int) -> list[int]:
    """Type, key size, value size, entries and flags of a map, as the kernel tells them (/proc/PID/fdinfo)."""
    with open(f"/proc/self/fdinfo/{fd}") as file:
        told = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return [int(told[name], 0) for name in ("map_type", "key_size", "value_size", "max_entries", "map_flags")]


def main() -> None:
    if sys.argv[1:] == ["check"]:
        try:
            import importlib.util

            answer = {"found": importlib.util.find_spec("bcc") is not None}
        except ImportError:
            answer = {"found": False}
    else:
        answer = compiled(json.load(sys.stdin))
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
