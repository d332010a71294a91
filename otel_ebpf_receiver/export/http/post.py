"""Posts bodies over HTTP/1.1 on one kept connection, and turns every outcome into an `Answer`.

Retried is what never reached a server, and the statuses that mean "later" (429, 502, 503, 504); a redirect is a refusal, not a success.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from otel_ebpf_receiver.export.http.connection import OwnConnection, Register, Target, register_nothing
from otel_ebpf_receiver.export.http.retry_after import retry_after_s
from otel_ebpf_receiver.export.http.user_agent import user_agent
from otel_ebpf_receiver.export.http.watchdog import Watchdog
from otel_ebpf_receiver.export.sender import Answer, Verdict

RETRIED = frozenset({429, 502, 503, 504})
GZIP_LEVEL = 1
"""Level 9, the official OTLP exporter's, costs three times the CPU for 15 % fewer bytes."""
ANSWER_MAX = 64 * 1024

ReadAccepted = Callable[[bytes], Answer]
ReadWords = Callable[[str, bytes], str]


@dataclass(frozen=True, slots=True)
class Resource:
    """What is posted to: where, path with query, headers (names in lower case), whether packed, and the longest time of one exchange."""

    target: Target
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_gzip: bool = False
    timeout_s: float | None = 10.0


class Poster:
    """One connection to one resource; `post` belongs to one thread, `abort` and `close` to any."""

    def __init__(
        self,
        resource: Resource,
        *,
        accepted: ReadAccepted,
        words: ReadWords,
        ignore: Register = register_nothing,
        unignore: Register = register_nothing,
    ) -> None:
        """`accepted` reads the body of a 2xx, `words` (of content type and body) what a server says otherwise."""
        self._resource = resource
        self._accepted = accepted
        self._words = words
        self._ignore = ignore
        self._unignore = unignore
        self._headers = _headers(resource)
        # A proxy that is not a tunnel is told the whole URL (RFC 9112 3.2.2).
        self._path = f"http://{self._headers['host']}{resource.path}" if _is_forwarded(resource.target) else resource.path
        self._connection: OwnConnection | None = None
        self._watchdog = Watchdog(self.abort)
        self._closed = False

    def post(self, body: bytes, limit_s: float | None = None) -> Answer:
        """Posts `body`; failures of the network are answers too."""
        if self._resource.is_gzip:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        timeout_s = min((limit for limit in (self._resource.timeout_s, limit_s) if limit is not None), default=None)
        if timeout_s is not None:
            # Timeouts of a socket start anew with every byte; this one bounds the whole exchange, a server that drips its answer included.
            self._watchdog.arm(timeout_s)
        try:
            return self._post(body, timeout_s)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # ValueError and AttributeError are what a TLS socket raises that was cut off by abort() in mid-read.
            self._drop()
            words = f"no answer within {timeout_s} s" if self._watchdog.disarm() else f"{type(error).__name__}: {error}"
            return Answer(Verdict.RETRY, f"{self._resource.target}: {words}")
        finally:
            self._watchdog.disarm()

    def abort(self) -> None:
        """Makes a running `post` return with RETRY."""
        if (connection := self._connection) is not None:
            connection.abort()

    def close(self) -> None:
        """Closes the connection and keeps it closed."""
        self._closed = True
        self._watchdog.close()
        self._drop()

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
        connection = OwnConnection(self._resource.target, timeout_s=timeout_s, ignore=self._ignore, unignore=self._unignore)
        self._connection = connection
        connection.connect()
        return self._exchange(connection, body)

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
        answer = self._judge(response, body)
        if not response.isclosed() or response.will_close:
            self._drop()
        return answer

    def _judge(self, response: http.client.HTTPResponse, body: bytes) -> Answer:
        status = response.status
        if 200 <= status < 300:
            return self._accepted(body)
        words = f"{status} {response.reason}: {self._words(response.headers.get('content-type', ''), body)}"
        if status in RETRIED:
            return Answer(Verdict.RETRY, words, retry_after_s=retry_after_s(response.headers.get("retry-after")))
        if status == 413:
            return Answer(Verdict.TOO_LARGE, words)
        if 300 <= status < 400:
            where = response.headers.get("location", "")
            return Answer(Verdict.REFUSED, f"{status} redirect to '{where}'; configure that endpoint instead")
        return Answer(Verdict.REFUSED, words)

    def _drop(self) -> None:
        if (connection := self._connection) is not None:
            self._connection = None
            with contextlib.suppress(OSError):
                connection.close()


def _headers(resource: Resource) -> dict[str, str]:
    target = resource.target
    host = f"[{target.host}]" if ":" in target.host else target.host
    headers = {"user-agent": user_agent(), "host": host if target.has_default_port else f"{host}:{target.port}", **resource.headers}
    if resource.is_gzip:
        headers["content-encoding"] = "gzip"
    if _is_forwarded(target) and target.proxy is not None and target.proxy.authorization:
        headers["proxy-authorization"] = target.proxy.authorization
    return headers


def _is_forwarded(target: Target) -> bool:
    return target.proxy is not None and target.tls is None
