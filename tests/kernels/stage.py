"""A veth pair with a server behind it, and a command that runs beside it: `python -m tests.kernels.stage COMMAND…` (as root).

For the virtual machines of `scripts/kernels`: COMMAND may have dropped the privileges that making the pair takes. Standard library only: imports
are slow there. Cleans up after itself; ends with the command's status.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

SPACE = f"oer-live-{os.getpid()}"
DEVICE, HERE, THERE, PORT = "oerlive0", "10.79.0.1", "10.79.0.2", 8080
PATIENCE_S = 60.0
SERVER = f"""
import http.server
class Kept(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
http.server.ThreadingHTTPServer(('{THERE}', {PORT}), Kept).serve_forever()
"""


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True)


def _wait_for_server() -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection((THERE, PORT), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def main(command: list[str]) -> int:
    """Makes the pair and the server, runs the command, and takes all away."""
    _ip(f"netns add {SPACE}")
    server = None
    try:
        _ip(f"link add {DEVICE} type veth peer name e0 netns {SPACE}")
        _ip(f"addr add {HERE}/24 dev {DEVICE}")
        _ip(f"link set {DEVICE} up")
        _ip(f"-n {SPACE} addr add {THERE}/24 dev e0")
        _ip(f"-n {SPACE} link set e0 up")
        there = ["ip", "netns", "exec", SPACE, sys.executable, "-c", SERVER]
        server = subprocess.Popen(there, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
        _wait_for_server()
        return subprocess.run(command, check=False).returncode
    finally:
        if server is not None:
            server.kill()
            server.wait()
        subprocess.run(["ip", "link", "del", DEVICE], check=False)
        subprocess.run(["ip", "netns", "del", SPACE], check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
