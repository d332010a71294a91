"""A small HTTP server of text pages, for the status server and for scrapes: few connections, answers cached and bounded.

Who asks too often costs the agent nothing, and a page that fails leaves the others alone. Streams (server-sent events) are made by others
and only carried here.
"""

from __future__ import annotations

import errno
import http.server
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

from otel_ebpf_receiver.errors import AgentError
from otel_ebpf_receiver.status.guard import HEADERS, is_loopback, refusal

logger = logging.getLogger(__name__)

PLAIN = "text/plain; charset=utf-8"
CACHE_S = 0.5
"""Less than anybody scrapes at: asked once a second, a page that stays for one would be the same twice."""
ANSWER_MAX = 4 << 20
CONNECTIONS_MAX = 16
IDLE_S = 5.0
"""Longest time that a client may take for its request, or not take what it is sent."""
PARAMETERS_MAX = 8

Answer = tuple[int, str, str]
"""Status, content type, text."""
Page = Callable[[bool], Answer]
"""Makes the answer; given whether the client takes OpenMetrics."""


class Stream(Protocol):
    """An endless answer of type text/event-stream."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Nobody listens any more; safe twice and before the first piece."""


Open = Callable[[Mapping[str, str]], Stream | None]
"""Begins a stream from the parameters of the query; None: there are as many as may be. Raises `ValueError` saying what is wrong with them."""


class PageServer:
    """Binds at construction, serves from `start()` on. `stop()` is safe twice and before `start()`."""

    def __init__(
        self,
        what: str,
        pages: Mapping[str, Page],
        *,
        section: str,
        host: str,
        port: int,
        answer_max: int = ANSWER_MAX,
        streams: Mapping[str, Open] | None = None,
    ) -> None:
        """`what` names it in errors and threads, `section` is where the configuration has its `host` and `port`. Raises `AgentError` when the address cannot be had."""
        self._pages = dict(pages)
        self.streams = dict(streams or {})
        self._answer_max = answer_max
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, bool], tuple[float, Answer]] = {}
        self._server = _bind(self, f"{what} ({section})", host, port)
        self.address = str(self._server.server_address[0])
        self.port = int(self._server.server_address[1])
        self.is_local = is_loopback(self.address)
        self.url = f"http://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}/"
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
            return 404, PLAIN, "not found; there are " + ", ".join(name for name in self._pages if name.count("/") == 1) + "\n"
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
            raise AgentError(
                f"{what}: port {port} of '{host}' is taken, perhaps by a second agent; choose another port or turn it off"
            ) from error
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
        owner = self.server.owner
        path, _, query = self.path.partition("?")
        refused = refusal({name.lower(): value for name, value in self.headers.items()}, is_local=owner.is_local)
        if refused:
            self._send((403, PLAIN, refused + "\n"))
        elif path in owner.streams and self.command == "GET":
            self._stream(owner.streams[path], query)
        else:
            self._send(self._answer(path))

    do_HEAD = do_GET

    def _answer(self, path: str) -> Answer:
        openmetrics = "application/openmetrics-text" in self.headers.get("accept", "")
        try:
            return self.server.owner.answer(path, openmetrics=openmetrics)
        except Exception:  # the outermost loop of its thread: a fault in one page must not silence the probes
            logger.exception("status page failed")
            return 500, PLAIN, "this page failed; the log of the agent says why\n"

    def _send(self, answer: Answer) -> None:
        status, content_type, text = answer
        body = text.encode()
        self._begin(status, content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self, begin: Open, query: str) -> None:
        try:
            stream = begin(dict(parse_qsl(query, max_num_fields=PARAMETERS_MAX)))
        except ValueError as error:
            self._send((400, PLAIN, f"{error}\n"))
            return
        if stream is None:
            self._send((503, PLAIN, "as many are listening as may; close another page\n"))
            return
        try:
            self._begin(200, "text/event-stream")
            self.end_headers()
            for piece in stream:
                self.wfile.write(piece)
        finally:
            stream.close()

    def _begin(self, status: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in HEADERS.items():
            self.send_header(name, value)

    def log_message(self, format: str, *args: object) -> None:
        """Probes are not logged."""
