"""Servers of the live tests: nginx with every kind of answer, and one whose connections a function of the test handles."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.capture.namespaces import Namespace
from tests.live.taps import PATIENCE_S, PORT, accepting, wait_until

Handle = Callable[[socket.socket, bytes], None]
"""Gets a connection and the head of a request on it."""

_NGINX = """
daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log {root}/access.log; default_type text/plain; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
  gzip on; gzip_types text/css; keepalive_requests 10000000; keepalive_timeout 60s; if_modified_since before;
  server {{
    listen 80; listen [::]:80; root {root}/files;
    location /posted {{ return 200 "posted\\n"; }}
    location /none {{ return 204; }}
    location /teapot {{ return 418 "short and stout\\n"; }}
    location /moved {{ return 302 /small; }}
    location /wrk {{ access_log off; return 200 "ok\\n"; }}
    location /upload {{ dav_methods PUT; client_max_body_size 50m; }}
  }}
  server {{ listen 82 http2; root {root}/files; }}
}}
"""
FILES = {"small": 10, "large": 1_000_000, "empty": 0}


@contextlib.contextmanager
def nginx(here: Namespace, root: Path) -> Iterator[None]:
    """nginx on port 80, both IP versions, and with HTTP/2 from the first byte on port 82."""
    files = root / "files"
    (files / "upload").mkdir(parents=True)
    for name, size in FILES.items():
        (files / name).write_bytes(bytes(size))
    (files / "style.css").write_text("".join(f".c{n} {{ color: red }}\n" for n in range(3000)))
    (root / "nginx.conf").write_text(_NGINX.format(root=root))
    command = here.command("nginx", "-c", str(root / "nginx.conf"), "-p", str(root))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_listening(here, 80)
            wait_listening(here, 82)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)


def wait_listening(here: Namespace, port: int) -> None:
    """Until somebody listens on the port there; without a connection, which would be seen."""

    def listens() -> bool:
        with here.inside():
            rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]]
        return any(row[3] == "0A" and row[1].endswith(f":{port:04X}") for row in rows)

    wait_until(listens)


@contextlib.contextmanager
def serving(here: Namespace, handle: Handle, *, port: int = PORT) -> Iterator[None]:
    """Hands every connection, when the head of its first request has come, to `handle` in a thread of its own; then closes it."""
    with here.inside():
        listener = socket.create_server(("", port))
    threads: list[threading.Thread] = []

    def run(peer: socket.socket) -> None:
        peer.settimeout(PATIENCE_S)
        with peer, contextlib.suppress(OSError):
            head = read_head(peer)
            if head:
                handle(peer, head)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threads.append(threading.Thread(target=run, args=(peer,), daemon=True))
                threads[-1].start()

    threads.append(threading.Thread(target=accept, daemon=True))
    with accepting(listener, threads):
        yield


def read_head(peer: socket.socket) -> bytes:
    """A head up to its empty line and not a byte further; empty when the connection ended before."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = peer.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def path_of(head: bytes) -> str:
    """The target of a request."""
    return head.split(b" ", 2)[1].decode()


def connect(here: Namespace, address: str, port: int = PORT) -> socket.socket:
    """A connection from the namespace."""
    with here.inside():
        peer = socket.create_connection((address, port), PATIENCE_S)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def reset(peer: socket.socket) -> None:
    """Ends the connection with a RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
