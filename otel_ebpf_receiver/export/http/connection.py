"""A TCP, TLS or unix connection, registered as the agent's own before its first packet, so that the agent never captures its exports.

It binds to a source address and port first, has the pair of endpoints ignored, and only then connects: a filter that learned of the
connection afterwards would already have seen its start. Knows nothing of what is sent.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from otel_ebpf_receiver.export.http.proxy import Proxy

Endpoint = tuple[str, int]
Register = Callable[[Endpoint, Endpoint], None]
"""Called with (local address, local port), (remote address, remote port)."""


def register_nothing(local: Endpoint, remote: Endpoint) -> None:
    """For an exporter whose connections nobody captures."""


class Tls(Protocol):
    """What makes a socket a TLS one: an `ssl.SSLContext`, or what stands for one whose files may change."""

    def wrap_socket(self, sock: socket.socket, *, do_handshake_on_connect: bool, server_hostname: str | None) -> ssl.SSLSocket: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect: a host and port, or the path of a unix socket; with TLS for https, and through a proxy where there is one."""

    host: str
    port: int
    unix_path: str | None = None
    tls: Tls | None = None
    proxy: Proxy | None = None

    def __str__(self) -> str:
        return self.unix_path or f"{self.host}:{self.port}"

    @property
    def has_default_port(self) -> bool:
        """Whether a Host header leaves the port out."""
        return self.unix_path is not None or self.port == (443 if self.tls else 80)


class OwnConnection(http.client.HTTPConnection):
    """An HTTP/1.1 connection whose `abort()` may be called from another thread, in every phase from connect to the last byte read."""

    def __init__(self, target: Target, *, timeout_s: float | None, ignore: Register, unignore: Register) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        self._target = target
        self._ignore = ignore
        self._unignore = unignore
        self._registered: tuple[Endpoint, Endpoint] | None = None
        self._raw: socket.socket | None = None
        self._aborted = False

    def connect(self) -> None:
        """Connects to the first address that answers. Raises OSError."""
        raw = self._connect_unix(self._target.unix_path) if self._target.unix_path else self._connect_tcp()
        if self._target.tls is None:
            self.sock = raw
            return
        if self._target.proxy is not None:
            self._tunnel_through(raw, self._target.proxy)
        # The handshake comes after the socket is known to abort(), which could not end it otherwise.
        self._raw = secured = self._target.tls.wrap_socket(raw, server_hostname=self._target.host, do_handshake_on_connect=False)
        try:
            if self._aborted:
                raise TimeoutError("aborted")
            secured.do_handshake()
        except BaseException:
            self._release(secured)
            raise
        self.sock = secured

    def limit(self, timeout_s: float | None) -> None:
        """Bounds each later operation on the socket."""
        self.timeout = timeout_s
        if self.sock is not None:
            self.sock.settimeout(timeout_s)

    def abort(self) -> None:
        """Ends whatever the connection is doing; it fails in its own thread."""
        self._aborted = True
        if (raw := self._raw) is not None:
            with contextlib.suppress(OSError):
                # The plain socket's shutdown: that of an SSLSocket takes the TLS state away under the thread that reads it.
                socket.socket.shutdown(raw, socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes, then forgets the registration. Safe twice."""
        super().close()
        if self._raw is not None:
            self._release(self._raw)

    def _connect_unix(self, path: str) -> socket.socket:
        raw = self._keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            raw.connect(path)
        except BaseException:
            self._release(raw)
            raise
        return raw

    def _connect_tcp(self) -> socket.socket:
        failure: OSError | None = None
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        where = self._target.proxy or self._target
        for family, _, _, _, address in socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM):
            try:
                return self._connect_address(family, address, deadline)
            except OSError as error:
                failure = error
                if self._aborted:
                    break
        raise failure or OSError(f"'{where.host}' has no address")

    def _tunnel_through(self, raw: socket.socket, proxy: Proxy) -> None:
        """Asks the proxy for a way to the server; from there on it sees TLS only."""
        host = f"[{self._target.host}]" if ":" in self._target.host else self._target.host
        server = f"{host}:{self._target.port}"
        authorization = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        try:
            raw.sendall(f"CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n{authorization}\r\n".encode())
            with http.client.HTTPResponse(raw, method="CONNECT") as response:
                response.begin()
                if response.status // 100 != 2:
                    raise OSError(f"the proxy '{proxy.host}:{proxy.port}' answered {response.status} {response.reason}")
        except BaseException:
            self._release(raw)
            raise

    def _connect_address(self, family: int, address: tuple[Any, ...], deadline: float | None) -> socket.socket:
        source = _source_address(family, address)
        raw = self._keep(socket.socket(family, socket.SOCK_STREAM))
        try:
            if deadline is not None:
                raw.settimeout(max(0.001, deadline - time.monotonic()))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.bind((source[0], 0, *source[2:]))
            self._register(_endpoint(raw.getsockname()), _endpoint(address))
            raw.connect(address)
        except BaseException:
            self._release(raw)
            raise
        return raw

    def _keep(self, raw: socket.socket) -> socket.socket:
        raw.settimeout(self.timeout)
        self._raw = raw
        if self._aborted:
            self._release(raw)
            raise TimeoutError("aborted")
        return raw

    def _register(self, local: Endpoint, remote: Endpoint) -> None:
        self._registered = (local, remote)
        self._ignore(local, remote)

    def _release(self, raw: socket.socket) -> None:
        raw.close()
        self._raw = None
        if (registered := self._registered) is not None:
            self._registered = None
            self._unignore(*registered)


def _source_address(family: int, address: tuple[Any, ...]) -> tuple[Any, ...]:
    """The address this host would send from: a UDP socket that connects asks the routes and sends nothing."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        source: tuple[Any, ...] = probe.getsockname()
        return source


def _endpoint(address: tuple[Any, ...]) -> Endpoint:
    # A link-local address carries its interface as a suffix, which no packet does.
    return str(address[0]).partition("%")[0], int(address[1])
