"""Real traffic for capture files: nginx in one network namespace, curl in another, a veth pair between them, and capture tools beside.

Everything lives in namespaces of its own, named after this process, and goes with them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

TOOLS = ("ip", "nginx", "curl", "tcpdump", "dumpcap", "tshark", "editcap", "mergecap", "text2pcap")
SERVER, CLIENT = "10.77.0.1", "10.77.0.2"
SERVER6 = "fd77::1"
SIZES = {"empty": 0, "small": 10, "medium": 100_000, "large": 1_000_000, "huge": 10_000_000}
PATIENCE_S = 20

_NGINX = """
daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log {root}/access.log; default_type text/plain; client_body_temp_path {root}/body;
  gzip on; gzip_types text/css; keepalive_requests 1000;
  server {{
    listen 80; listen [::]:80; root {root}/files;
    location /answer {{ return 200 "posted"; }}
    location /teapot {{ return 418 "short and stout"; }}
  }}
}}
"""


def missing_tools() -> list[str]:
    """Programs that the live tests need and that are not there; "root" if this process is not it."""
    return [tool for tool in TOOLS if not shutil.which(tool)] + ([] if os.geteuid() == 0 else ["root"])


def content(size: int) -> bytes:
    """What stands in a file of this size."""
    return (bytes(n * 7 % 251 for n in range(251)) * (size // 251 + 1))[:size]


def run(*command: str | Path) -> str:
    """Runs a program that must end well; its output."""
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, timeout=60).stdout


class Site:
    """A server and a client namespace, joined by a veth pair, with nginx running."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server = f"replay-{os.getpid()}-s"
        self.client = f"replay-{os.getpid()}-c"

    def curl(self, *arguments: str, where: str = "") -> None:
        """Runs curl in the client's namespace, or in another; what it gets is thrown away."""
        run("ip", "netns", "exec", where or self.client, "curl", "-sS", "-o", "/dev/null", *arguments)

    def allow_big_tcp(self) -> None:
        """From here on frames on the link grow beyond 64 KiB (IPv6, whose BIG TCP is the older)."""
        for name in (self.server, self.client):
            run("ip", "-n", name, "link", "set", "veth0", "gso_max_size", "190000", "gro_max_size", "190000")

    @contextlib.contextmanager
    def capture(self, *command: str | Path, to: Path, sentinel: str) -> Iterator[None]:
        """Runs a capture tool in the server's namespace; ends it when the request for `sentinel` is in its file."""
        full = ["ip", "netns", "exec", self.server, *map(str, command), "-w", str(to)]
        with subprocess.Popen(full, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                for line in process.stderr:
                    if "listening on" in line or line.startswith("File:"):
                        break
                yield
                self._wait_for(to, sentinel)
            finally:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=PATIENCE_S)

    def _wait_for(self, file: Path, sentinel: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while sentinel.encode() not in file.read_bytes():
            if time.monotonic() > until:
                raise TimeoutError(f"{sentinel} does not come to {file}")
            time.sleep(0.1)
        time.sleep(0.5)  # its answer and the end of its connection


@contextlib.contextmanager
def site(root: Path) -> Iterator[Site]:
    """Namespaces, link and server, gone afterwards."""
    place = Site(root)
    files = root / "files"
    files.mkdir()
    for name, size in SIZES.items():
        (files / name).write_bytes(content(size))
    (files / "style.css").write_text("".join(f".c{n} {{ color: red }}\n" for n in range(3000)))
    (root / "nginx.conf").write_text(_NGINX.format(root=root))
    with contextlib.ExitStack() as stack:
        for name in (place.server, place.client):
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", place.server, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", place.client)
        for name, addresses in ((place.server, (f"{SERVER}/24", f"{SERVER6}/64")), (place.client, (f"{CLIENT}/24", "fd77::2/64"))):
            for address in addresses:
                run("ip", "-n", name, "address", "add", address, "dev", "veth0", *(["nodad"] if ":" in address else []))
            run("ip", "-n", name, "link", "set", "veth0", "up")
        stack.enter_context(_nginx(place))
        yield place


@contextlib.contextmanager
def _nginx(place: Site) -> Iterator[None]:
    command: Sequence[str | Path] = ("ip", "netns", "exec", place.server, "nginx", "-c", place.root / "nginx.conf", "-p", place.root)
    with subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL) as process:
        try:
            place.curl("--retry", "50", "--retry-connrefused", "--retry-max-time", str(PATIENCE_S), f"http://{SERVER}/small")
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


TERSE_SIZES = (5000, 0, 10, 60_000, 500_000, 7, 20_000, 3)
_TERSE_SERVER = """
import socket
listener = socket.create_server(("", 81))
print("open", flush=True)
peer = listener.accept()[0]
asked = peer.makefile("rb")
while line := asked.readline():
    while asked.readline() != b"\\r\\n":
        pass
    size = int(line.split()[1][1:])
    filler = b"X-Filler: " + b"f" * 90 + b"\\r\\n" if size == 7 else b""
    peer.sendall(b"HTTP/1.1 200 OK\\r\\n%sContent-Length: %d\\r\\n\\r\\n" % (filler, size) + bytes(size))
"""
_TERSE_CLIENT = """
import http.client, sys, socket
peer = socket.create_connection((sys.argv[1], 81))
for size in sys.argv[2:]:
    peer.sendall(b"GET /%s HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" % size.encode())
    answer = http.client.HTTPResponse(peer)
    answer.begin()
    assert len(answer.read()) == int(size)
"""


def talk_tersely(place: Site) -> None:
    """One connection to port 81 with heads so short that 128 bytes of a frame hold them, and bodies of TERSE_SIZES.

    Only the answer of 7 bytes has a long head.
    """
    command = ["ip", "netns", "exec", place.server, sys.executable, "-c", _TERSE_SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            run("ip", "netns", "exec", place.client, sys.executable, "-c", _TERSE_CLIENT, SERVER, *map(str, TERSE_SIZES))
            process.wait(PATIENCE_S)
        finally:
            process.kill()


def talk(place: Site, host: str, sentinel: str, *, where: str = "") -> None:
    """Exchanges of many kinds with the server at `host`; the last asks for `sentinel` and is answered 404."""
    base = f"http://{host}"
    place.curl(f"{base}/small", "-o", "/dev/null", f"{base}/medium", "-o", "/dev/null", f"{base}/large", where=where)
    place.curl("-I", f"{base}/large", where=where)
    place.curl("--compressed", f"{base}/style.css", where=where)
    place.curl("-d", "x=" + "y" * 9000, f"{base}/answer", where=where)
    place.curl("-H", "Expect: 100-continue", "-d", "x=" + "y" * 90_000, f"{base}/answer?continued", where=where)
    place.curl("-X", "OPTIONS", f"{base}/teapot", where=where)
    place.curl("--http1.0", f"{base}/empty", where=where)
    place.curl(f"{base}/{sentinel}", where=where)
