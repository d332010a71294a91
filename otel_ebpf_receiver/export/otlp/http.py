"""Sends OTLP requests over HTTP/1.1 on one kept connection, and turns every outcome into an `Answer`.

Retried is what the OTLP specification names (429, 502, 503, 504) and what never reached a server; a redirect is a refusal, not a success.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import threading
from urllib.parse import urlsplit

from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.answers import accepted_bytes, retry_after_s, words_of
from otel_ebpf_receiver.export.otlp.connection import OwnConnection, Register, Target, register_nothing
from otel_ebpf_receiver.export.otlp.credentials import tls_context
from otel_ebpf_receiver.export.otlp.options import Compression, OtlpOptions
from otel_ebpf_receiver.export.otlp.user_agent import user_agent
from otel_ebpf_receiver.export.sender import Answer, Verdict

RETRIED = frozenset({429, 502, 503, 504})
GZIP_LEVEL = 1
"""Level 9, the official exporter's, costs three times the CPU for 15 % fewer bytes."""
ANSWER_MAX = 64 * 1024


class HttpTransport:
    """One connection to one URL; `send` belongs to one thread, `abort` and `close` to any."""

    def __init__(
        self, options: OtlpOptions, signal: Signal, *, ignore: Register = register_nothing, unignore: Register = register_nothing
    ) -> None:
        self._options = options
        self._signal = signal
        self._ignore = ignore
        self._unignore = unignore
        self._target, self._path = _target(options, signal)
        self._headers = _headers(options, self._target)
        self._connection: OwnConnection | None = None
        self._closed = False

    def send(self, body: bytes, limit_s: float | None = None) -> Answer:
        """Posts `body`; failures of the network are answers too."""
        if self._options.compression is Compression.GZIP:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        timeout_s = min((limit for limit in (self._options.timeout_s, limit_s) if limit is not None), default=None)
        expired = threading.Event()
        timer = self._watch(timeout_s, expired)
        try:
            return self._post(body, timeout_s)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # ValueError and AttributeError are what a TLS socket raises that was cut off by abort() in mid-read.
            self._drop()
            words = f"no answer within {timeout_s} s" if expired.is_set() else f"{type(error).__name__}: {error}"
            return Answer(Verdict.RETRY, f"{self._target.host}:{self._target.port}: {words}")
        finally:
            timer.cancel()

    def abort(self) -> None:
        """Makes a running `send` return with RETRY."""
        if (connection := self._connection) is not None:
            connection.abort()

    def close(self) -> None:
        """Closes the connection and keeps it closed."""
        self._closed = True
        self._drop()

    def _watch(self, timeout_s: float | None, expired: threading.Event) -> threading.Timer:
        # Timeouts of a socket start anew with every byte; this one bounds the whole exchange, a server that drips its answer included.
        def expire() -> None:
            expired.set()
            self.abort()

        timer = threading.Timer(timeout_s or 0.0, expire)
        timer.daemon = True
        if timeout_s is not None:
            timer.start()
        return timer

    def _post(self, body: bytes, timeout_s: float | None) -> Answer:
        if (connection := self._connection) is not None:
            connection.limit(timeout_s)
            try:
                return self._exchange(connection, body)
            except (ConnectionError, http.client.BadStatusLine):
                # A kept connection that the server closed meanwhile says nothing about the server: once more on a fresh one.
                self._drop()
        if self._closed:
            raise ConnectionAbortedError("closed")
        self._connection = OwnConnection(self._target, timeout_s=timeout_s, ignore=self._ignore, unignore=self._unignore)
        self._connection.connect()
        return self._exchange(self._connection, body)

    def _exchange(self, connection: OwnConnection, body: bytes) -> Answer:
        try:
            connection.request("POST", self._path, body, self._headers)
        except (BrokenPipeError, ConnectionResetError):
            # A server may refuse by the head alone and close; its answer can still be there to read.
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self._read(connection)
            raise
        return self._read(connection)

    def _read(self, connection: OwnConnection) -> Answer:
        response = connection.getresponse()
        body = response.read(ANSWER_MAX)
        answer = _answer(self._signal, response, body)
        if not response.isclosed() or response.will_close:
            self._drop()
        return answer

    def _drop(self) -> None:
        if (connection := self._connection) is not None:
            self._connection = None
            with contextlib.suppress(OSError):
                connection.close()


def _target(options: OtlpOptions, signal: Signal) -> tuple[Target, str]:
    if options.endpoint.startswith("unix:"):
        path = options.endpoint.removeprefix("unix:")
        return Target("localhost", 0, unix_path=path.removeprefix("//")), f"/v1/{signal}"
    parts = urlsplit(options.endpoint)
    tls = tls_context(options) if options.is_secure else None
    target = Target(parts.hostname or "localhost", parts.port or (443 if tls else 80), tls=tls)
    return target, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _headers(options: OtlpOptions, target: Target) -> dict[str, str]:
    headers = {"User-Agent": user_agent(), **dict(options.headers), "Content-Type": "application/x-protobuf"}
    if options.compression is Compression.GZIP:
        headers["Content-Encoding"] = "gzip"
    host = f"[{target.host}]" if ":" in target.host else target.host
    headers.setdefault("host", host if target.port in (0, 443 if target.tls else 80) else f"{host}:{target.port}")
    return headers


def _answer(signal: Signal, response: http.client.HTTPResponse, body: bytes) -> Answer:
    status = response.status
    if 200 <= status < 300:
        return accepted_bytes(signal, body)
    words = f"{status} {response.reason}: {words_of(response.headers.get('content-type', ''), body)}"
    if status in RETRIED:
        return Answer(Verdict.RETRY, words, retry_after_s=retry_after_s(response.headers.get("retry-after")))
    if status == 413:
        return Answer(Verdict.TOO_LARGE, words)
    if 300 <= status < 400:
        return Answer(Verdict.REFUSED, f"{status} redirect to '{response.headers.get('location', '')}'; configure that endpoint instead")
    return Answer(Verdict.REFUSED, words)
