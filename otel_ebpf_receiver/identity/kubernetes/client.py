"""HTTP to the API server, through the official client's `ApiClient` and `Configuration`: raw JSON pages and lines, no models.

The only module that imports the `kubernetes` package, and only when a connection is made. It retries nothing and knows no object; what
goes wrong becomes `Refused` (the server answered) or `Unreachable` (it did not).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from otel_ebpf_receiver.errors import KubernetesError

TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"
CERTIFICATE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
_LINE_MAX = 16 << 20
_BLOCK = 256 << 10
_HEAD_MAX = 4096
_BODY_MAX = 64 << 20


class Refused(KubernetesError):
    """The API server answered, and not what was asked for."""

    def __init__(self, status: int, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.retry_after_s = retry_after_s


class Unreachable(KubernetesError):
    """No whole answer came."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the API server is reached: by kubeconfig, or (empty) as a pod's service account."""

    kubeconfig: str = ""
    token_file: str = TOKEN_FILE
    certificate_file: str = CERTIFICATE_FILE
    environ: Mapping[str, str] | None = None


def find_access(
    enabled: bool | None,
    kubeconfig: str,
    environ: Mapping[str, str],
    *,
    token_file: str = TOKEN_FILE,
    certificate_file: str = CERTIFICATE_FILE,
) -> Access | None:
    """The way to the API server: in a cluster the service account, elsewhere the kubeconfig; None: Kubernetes is off.

    Raises KubernetesError when it is asked for and there is none.
    """
    if enabled is False:
        return None
    if environ.get("KUBERNETES_SERVICE_HOST") and os.path.exists(token_file):
        return Access(token_file=token_file, certificate_file=certificate_file, environ=environ)
    if kubeconfig:
        return Access(kubeconfig)
    if enabled:
        raise KubernetesError("kubernetes.enabled: there is neither a service account nor a kubeconfig; run in a pod, or set KUBECONFIG")
    return None


class Stream:
    """The lines of a watch. `stop` may be called by any thread, and more than once."""

    def __init__(self, response: Any, sock: socket.socket | None = None) -> None:
        self._response = response
        self._sock = sock
        self._poll = select.poll()
        if sock is not None:
            self._poll.register(sock, select.POLLIN)

    def lines(self) -> Iterator[list[bytes]]:
        """Lines as they come, those together that came together. Raises Unreachable when the stream is cut, silent for too long, or sends a line
        without end."""
        lines = _Lines()
        with _translated():
            for pieces in self._pieces():
                if whole := lines.whole(pieces):
                    yield whole
        if lines.is_inside():
            raise Unreachable("the watch ended inside a line")

    def is_quiet(self) -> bool:
        """Nothing more has arrived than the lines that were given: now is the time to wait."""
        sock = self._sock
        if sock is None or sock.fileno() < 0 or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            return False
        return not self._poll.poll(0)

    def _pieces(self) -> Iterator[list[bytes]]:
        response = self._response
        if not response.chunked:
            # As a proxy of HTTP/1.0 sends it. The library's `stream` waits until a block is full.
            yield from ([piece] for piece in iter(partial(response.read1, _BLOCK, decode_content=True), b""))
            return
        if response.headers.get("Content-Encoding"):
            yield from ([piece] for piece in response.stream(_BLOCK, decode_content=True))
            return
        # hot: benchmarks/identity.py. The libraries above this file, which is http.client's, read a chunk and so an event at a time, and keep to themselves
        # what they have read beyond it.
        yield from _unchunked(response._fp.fp)

    def stop(self) -> None:
        """End it: a reader that waits sees the end at once."""
        with contextlib.suppress(Exception):
            self._response.shutdown()

    def close(self) -> None:
        """Let the connection go; to be called by the reader."""
        with contextlib.suppress(Exception):
            self._response.close()


class Api:
    """A connection pool to one API server; any number of threads may use it."""

    def __init__(self, access: Access, *, user_agent: str = "otel-ebpf-receiver") -> None:
        """Raises KubernetesError when there is no way to the server as configured."""
        self._access = access
        self._user_agent = user_agent
        self._lock = threading.Lock()
        self._client = self._connect()
        self.requests_total = 0

    def get(self, path: str, query: Mapping[str, str], accept: str, decode: Callable[[bytes], Any] = json.loads) -> Any:
        """What `decode` makes of one answer; ValueError of it means that the answer is no JSON. Raises Refused and Unreachable."""
        response = self._request(path, query, accept, READ_TIMEOUT_S)
        try:
            with _translated():
                body = response.read(_BODY_MAX + 1, decode_content=True)
                response.release_conn()
        except KubernetesError:
            # What was cut off half way is of no use to the next request.
            response.close()
            raise
        if len(body) > _BODY_MAX:
            response.close()
            raise Unreachable(f"the answer to {path!r} is longer than {_BODY_MAX} bytes")
        try:
            return decode(body)
        except ValueError as error:
            raise Unreachable(f"the answer to {path!r} is not JSON: {error}") from error

    def watch(self, path: str, query: Mapping[str, str], accept: str, read_timeout_s: float) -> Stream:
        """An open watch, which may be silent for `read_timeout_s`. Raises Refused and Unreachable."""
        response = self._request(path, query, accept, READ_TIMEOUT_S)
        sock = _socket(response)
        # A watch answers at once and then may be silent: two timeouts, and the library has one.
        if sock is not None:
            sock.settimeout(read_timeout_s)
        return Stream(response, sock)

    def renew(self) -> None:
        """Read token and certificates again. Raises KubernetesError."""
        with self._lock:
            old, self._client = self._client, self._connect()
        old.rest_client.pool_manager.clear()

    def close(self) -> None:
        """Drop idle connections."""
        self._client.rest_client.pool_manager.clear()

    def _request(self, path: str, query: Mapping[str, str], accept: str, read_timeout_s: float) -> Any:
        client = self._client
        with _translated():
            method, url, headers, _, _ = client.param_serialize(
                "GET", path, query_params=list(query.items()), header_params={"Accept": accept}, auth_settings=["BearerToken"]
            )
            if "authorization" in headers:
                # A token file may end in a newline, which no header may.
                headers["authorization"] = headers["authorization"].strip()
            self.requests_total += 1
            response = client.rest_client.request(method, url, headers, _request_timeout=(CONNECT_TIMEOUT_S, read_timeout_s)).response
        if response.status == 200:
            return response
        body = b""
        with contextlib.suppress(Exception):
            body = response.read(65536, decode_content=True)
        response.close()
        raise Refused(response.status, _message(body, response.reason), _seconds(response.headers.get("Retry-After")))

    def _connect(self) -> Any:
        # hot: these imports take half a second and 30 MiB, so they are made only where Kubernetes is on.
        from kubernetes.client.api_client import ApiClient
        from kubernetes.client.configuration import Configuration

        configuration = Configuration()
        configuration.retries = False
        configuration.keep_alive = True
        configuration.connection_pool_maxsize = 8
        try:
            self._load(configuration)
        except Exception as error:
            # The library raises whatever the content of the files makes Python raise.
            how = f"kubeconfig {self._access.kubeconfig!r}" if self._access.kubeconfig else "the pod's service account"
            raise KubernetesError(f"no access to the API server by {how}: {error}") from error
        client = ApiClient(configuration)
        client.user_agent = self._user_agent
        return client

    def _load(self, configuration: Any) -> None:
        access = self._access
        if access.kubeconfig:
            from kubernetes.config import load_kube_config

            load: Any = load_kube_config
            load(access.kubeconfig, client_configuration=configuration, persist_config=False)
        else:
            from kubernetes.config.incluster_config import InClusterConfigLoader

            environ = os.environ if access.environ is None else access.environ
            loader: Any = InClusterConfigLoader
            loader(access.token_file, access.certificate_file, environ=environ).load_and_set(configuration)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Whatever the libraries below raise is one of this module's errors."""
    from kubernetes.client.exceptions import ApiException
    from kubernetes.config.config_exception import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ConfigException as error:
        raise KubernetesError(f"no access to the API server: {error}") from error
    except (HTTPError, ApiException, OSError, ValueError) as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error


def _socket(response: Any) -> socket.socket | None:
    """What an answer comes through. Where its end is the end of the connection, http.client has let go of it, and only the body's file has it."""
    if response.connection is not None and response.connection.sock is not None:
        sock = response.connection.sock
    else:
        sock = getattr(getattr(response._fp.fp, "raw", None), "_sock", None)
    return sock if isinstance(sock, socket.socket) else None


class _Lines:
    """Whole lines out of pieces; what is left of one waits for the next."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def is_inside(self) -> bool:
        """The last piece ended inside a line."""
        return self._size > 0

    def whole(self, pieces: list[bytes]) -> list[bytes]:
        """The lines that end in these pieces. Raises Unreachable for one that is too long."""
        whole = list[bytes]()
        for piece in pieces:
            if not self._size and piece.find(b"\n") == len(piece) - 1:
                # hot: benchmarks/identity.py. As nearly all are: an event is a line is a chunk.
                whole.append(piece[:-1])
            else:
                self._cut(piece, whole)
        return whole

    def _cut(self, piece: bytes, whole: list[bytes]) -> None:
        head, *lines = piece.split(b"\n")
        self._rest.append(head)
        self._size += len(head)
        if self._size > _LINE_MAX:
            raise Unreachable(f"a line of the watch is longer than {_LINE_MAX} bytes")
        if lines:
            whole += [b"".join(self._rest), *lines]
            self._rest = [whole.pop()]
            self._size = len(self._rest[0])


def _unchunked(file: Any) -> Iterator[list[bytes]]:
    """The chunks of a chunked body (RFC 9112, section 7.1), those together that came together. `file`: io.BufferedReader of a socket.

    Raises Unreachable where it is cut, and ValueError where it is none.
    """
    # hot: benchmarks/identity.py. One buffer for all there is: new ones are new pages each time. The library's own holds what was read with the head.
    ahead = file.read1(_BLOCK)
    buffer, filled, got = bytearray(_BLOCK), len(ahead), len(ahead)
    buffer[:filled] = ahead
    while got:
        chunks, at, size = _chunks(buffer, filled)
        yield chunks
        if not size:
            return
        rest = buffer[at:filled]
        filled = len(rest)
        if max(size, _BLOCK) != len(buffer):
            buffer = bytearray(max(size, _BLOCK))
        buffer[:filled] = rest
        with memoryview(buffer) as view:
            got = file.raw.readinto(view[filled:])
        filled += got
    raise Unreachable("the watch ended before its last chunk")


def _chunks(buffer: bytearray, filled: int) -> tuple[list[bytes], int, int]:
    """The whole chunks of a buffer, where the first begins that is not, and how much that takes at least; 0: there are no more."""
    chunks, view, at = list[bytes](), memoryview(buffer), 0
    while (end := buffer.find(b"\r\n", at, filled)) >= 0:
        size, begin = int(buffer[at:end].partition(b";")[0], 16), end + 2
        if not 0 <= size <= _LINE_MAX:
            raise Unreachable(f"a chunk of the watch is of {size} bytes")
        if not size:
            return chunks, begin, 0
        if filled < begin + size + 2:
            return chunks, at, begin + size + 2 - at
        chunks.append(bytes(view[begin : begin + size]))
        at = begin + size + 2
    if filled - at > _HEAD_MAX:
        raise Unreachable("the watch is no chunked body")
    return chunks, at, 1


def _message(body: bytes, reason: str) -> str:
    """What a Status object says, or the reason phrase."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return reason or "no reason given"


def _seconds(text: str | None) -> float:
    return float(text) if text and text.strip().isdigit() else 0.0
