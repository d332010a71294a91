"""A small server on this host for probes and people: /healthz, /readyz, /metrics, /status. Needs no privilege and reveals no payload.

Answers are cached for a moment and bounded, connections are few and short: who asks too often costs the agent nothing.
"""

from __future__ import annotations

import errno
import http.server
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from otel_ebpf_receiver.errors import AgentError
from otel_ebpf_receiver.status.counters import Counters
from otel_ebpf_receiver.status.exposition import CONTENT_TYPE, exposition

logger = logging.getLogger(__name__)

PORT = 14318
"""OTLP's port with a one before it; 9464, the usual one of Prometheus exporters in SDKs, is left to the applications of a node."""
CACHE_S = 1.0
ANSWER_MAX = 4 << 20
CONNECTIONS_MAX = 16
IDLE_S = 5.0

Answer = tuple[int, str, str]
"""Status, content type, text."""


class StatusServer:
    """Binds at construction, serves from `start()` on. `stop()` is safe twice and before `start()`."""

    def __init__(
        self,
        counters: Counters,
        *,
        is_live: Callable[[], bool],
        is_ready: Callable[[], bool],
        status: Callable[[], Mapping[str, object]],
        host: str = "127.0.0.1",
        port: int = PORT,
    ) -> None:
        """Raises `AgentError` when the address cannot be had."""
        self._pages: dict[str, Callable[[], Answer]] = {
            "/healthz": lambda: _probe(is_live(), "alive", "not alive"),
            "/readyz": lambda: _probe(is_ready(), "ready", "not ready"),
            "/metrics": lambda: (200, CONTENT_TYPE, exposition(counters.readings())),
            "/status": lambda: (200, "application/json", json.dumps(status(), default=str, indent=1) + "\n"),
        }
        self._lock = threading.Lock()
        self._cache: dict[str, tuple[float, Answer]] = {}
        self._server = _bind(self, host, port)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="status", daemon=True)

    def start(self) -> None:
        """Starts serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stops serving and frees the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(2)
        self._server.server_close()

    def answer(self, path: str) -> Answer:
        """The answer to GET `path`, at most a moment old."""
        page = self._pages.get(path)
        if page is None:
            return 404, "text/plain; charset=utf-8", "not found; there are " + ", ".join(self._pages) + "\n"
        # One at a time: whoever waits finds the answer of the one before in the cache.
        with self._lock:
            cached = self._cache.get(path)
            if cached is not None and time.monotonic() - cached[0] < CACHE_S:
                return cached[1]
            answer = page()
            if len(answer[2]) > ANSWER_MAX:
                answer = (500, "text/plain; charset=utf-8", f"the answer exceeds {ANSWER_MAX} bytes\n")
            self._cache[path] = (time.monotonic(), answer)
            return answer


def _probe(holds: bool, yes: str, no: str) -> Answer:
    return (200, "text/plain; charset=utf-8", yes + "\n") if holds else (503, "text/plain; charset=utf-8", no + "\n")


def _bind(owner: StatusServer, host: str, port: int) -> _Server:
    try:
        return _Server(owner, host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AgentError(f"status: port {port} of '{host}' is taken; choose another port or turn the status server off") from error
        what = f"cannot listen on '{host}' port {port} ({error.strerror})"
        raise AgentError(f"status: {what}; choose another address or turn the status server off") from error


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, owner: StatusServer, host: str, port: int) -> None:
        self.owner = owner
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # The base class asks the name server for this host's name, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event; a page that failed was logged where it failed."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = IDLE_S
    server_version = "otel_ebpf_receiver"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        try:
            status, content_type, text = self.server.owner.answer(path)
        except Exception:  # a page is the outermost loop of its thread: a fault in one counter must not silence the probes
            logger.exception("status page failed")
            status, content_type, text = 500, "text/plain; charset=utf-8", "this page failed; the log of the agent says why\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Probes are not logged."""
