"""A small HTTP server of text pages, for the status server and for scrapes: few and short connections, answers cached and bounded.

Who asks too often costs the agent nothing, and a page that fails leaves the others alone.
"""

from __future__ import annotations

import errno
import http.server
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from otel_ebpf_receiver.errors import AgentError

logger = logging.getLogger(__name__)

PLAIN = "text/plain; charset=utf-8"
CACHE_S = 1.0
ANSWER_MAX = 4 << 20
CONNECTIONS_MAX = 16
IDLE_S = 5.0

Answer = tuple[int, str, str]
"""Status, content type, text."""
Page = Callable[[bool], Answer]
"""Makes the answer; given whether the client takes OpenMetrics."""


class PageServer:
    """Binds at construction, serves from `start()` on. `stop()` is safe twice and before `start()`."""

    def __init__(self, what: str, pages: Mapping[str, Page], *, host: str, port: int, answer_max: int = ANSWER_MAX) -> None:
        """`what` names it in errors and threads. Raises `AgentError` when the address cannot be had."""
        self._pages = dict(pages)
        self._answer_max = answer_max
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, bool], tuple[float, Answer]] = {}
        self._server = _bind(self, what, host, port)
        self.address = str(self._server.server_address[0])
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name=what, daemon=True)

    def start(self) -> None:
        """Starts serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stops serving and frees the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(2)
        self._server.server_close()

    def answer(self, path: str, *, openmetrics: bool = False) -> Answer:
        """The answer to GET `path`, at most a moment old."""
        page = self._pages.get(path)
        if page is None:
            return 404, PLAIN, "not found; there are " + ", ".join(self._pages) + "\n"
        key = (path, openmetrics)
        # One at a time: whoever waits finds the answer of the one before in the cache.
        with self._lock:
            cached = self._cache.get(key)
            if cached is not None and time.monotonic() - cached[0] < CACHE_S:
                return cached[1]
            answer = page(openmetrics)
            if len(answer[2]) > self._answer_max:
                answer = (500, PLAIN, f"the answer exceeds {self._answer_max} bytes\n")
            self._cache[key] = (time.monotonic(), answer)
            return answer


def _bind(owner: PageServer, what: str, host: str, port: int) -> _Server:
    try:
        return _Server(owner, host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AgentError(f"{what}: port {port} of '{host}' is taken; choose another port or turn it off") from error
        reason = error.strerror or str(error)
        raise AgentError(f"{what}: cannot listen on '{host}' port {port} ({reason}); choose another address or turn it off") from error


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, owner: PageServer, host: str, port: int) -> None:
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
    disable_nagle_algorithm = True
    server_version = "otel_ebpf_receiver"
    sys_version = ""

    def do_GET(self) -> None:
        openmetrics = "application/openmetrics-text" in self.headers.get("accept", "")
        try:
            status, content_type, text = self.server.owner.answer(self.path.partition("?")[0], openmetrics=openmetrics)
        except Exception:  # the outermost loop of its thread: a fault in one page must not silence the probes
            logger.exception("status page failed")
            status, content_type, text = 500, PLAIN, "this page failed; the log of the agent says why\n"
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
