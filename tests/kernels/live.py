"""One live exchange after the other over a veth pair, through the real programs on a real tap: `python -m tests.kernels.live` (as root).

For the virtual machines of `scripts/kernels`, where no test runner is wanted. Cleans up after itself; ends with 1 and a sentence on failure.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time

from otel_ebpf_receiver.kernel.loader import BuildOptions, load
from otel_ebpf_receiver.sources.http.kernel import kernel_source

SPACE = f"oer-live-{os.getpid()}"
COUNT = 20
SERVER = "import http.server as s; s.ThreadingHTTPServer(('10.79.0.2', 8080), s.SimpleHTTPRequestHandler).serve_forever()"


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True)


def exchanges(transport: str) -> int:
    """How many of `COUNT` exchanges come out of the kernel."""
    with load([kernel_source()], BuildOptions(transport)) as programs, socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as tap:
        programs.attach(tap)
        tap.bind(("oerlive0", 3))
        connection = http.client.HTTPConnection("10.79.0.2", 8080, source_address=("10.79.0.1", 0), timeout=10)
        for number in range(COUNT):
            connection.request("GET", f"/?{number}")
            connection.getresponse().read()
        connection.close()
        time.sleep(0.2)
        records = programs.transports["http"].drain()
        good = records[(records["status"] == 200) & (records["direction"] == 2) & (records["flags"] == 0)]
        return len(good)


def main() -> int:
    """Makes the pair and the server, and counts."""
    _ip(f"netns add {SPACE}")
    server = None
    try:
        _ip(f"link add oerlive0 type veth peer name e0 netns {SPACE}")
        _ip("addr add 10.79.0.1/24 dev oerlive0")
        _ip("link set oerlive0 up")
        _ip(f"-n {SPACE} addr add 10.79.0.2/24 dev e0")
        _ip(f"-n {SPACE} link set e0 up")
        server = subprocess.Popen(["ip", "netns", "exec", SPACE, sys.executable, "-c", SERVER], cwd="/", stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                socket.create_connection(("10.79.0.2", 8080), timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        for transport in ("ring", "hash"):
            found = exchanges(transport)
            print(f"live over veth, {transport}: {found} of {COUNT} exchanges")
            if found != COUNT:
                return 1
    finally:
        if server is not None:
            server.kill()
            server.wait()
        subprocess.run(["ip", "link", "del", "oerlive0"], check=False)
        subprocess.run(["ip", "netns", "del", SPACE], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
