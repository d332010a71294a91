"""Compiles and loads the kernel side with bcc: runs as a child under the distribution's interpreter, and is the only file that imports bcc.

Standard library besides, and nothing of this package: it is started as `python3 -I compile.py SOCKET_FD`. It reads one JSON request from standard input, loads maps
and programs, sends their descriptors over the socket, and ends: LLVM's memory goes with it.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys

BATCH = 200
"""Descriptors in one message; the kernel allows 253 (SCM_MAX_FD)."""


def _raise_memory_lock() -> None:
    """Before Linux 5.11 maps count against RLIMIT_MEMLOCK; raising it needs CAP_SYS_RESOURCE."""
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        pass


def _send(link: socket.socket, answer: dict[str, object], descriptors: list[int]) -> None:
    body = json.dumps(answer).encode()
    link.sendall(len(body).to_bytes(4, "little") + body)
    for at in range(0, len(descriptors), BATCH):
        socket.send_fds(link, [b"."], descriptors[at : at + BATCH])


def main() -> int:
    request = json.load(sys.stdin)
    os.environ["BCC_KERNEL_SOURCE"] = request["headers"]
    link = socket.socket(fileno=int(sys.argv[1]))
    try:
        import bcc
    except ImportError as error:
        _send(link, {"error": "no bcc", "detail": str(error)}, [])
        return 0
    _raise_memory_lock()
    try:
        program = bcc.BPF(text=request["text"], cflags=request["flags"])
        loaded = [program.load_func(name, bcc.BPF.SOCKET_FILTER).fd for name in request["programs"]]
        maps = []
        for name in request["maps"]:
            table = program[name]
            maps.append(table.map_fd)
    except Exception as error:
        _send(link, {"error": "not loaded", "detail": str(error), "bcc": bcc.__version__}, [])
        return 0
    _send(link, {"programs": request["programs"], "maps": request["maps"], "bcc": bcc.__version__}, loaded + maps)
    link.recv(1)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
