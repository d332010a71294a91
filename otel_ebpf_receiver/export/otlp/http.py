"""OTLP over HTTP: what of the options, the path and the answers is OTLP's. The sending itself is `export/http`."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.http.connection import Register, Target, register_nothing
from otel_ebpf_receiver.export.http.post import Poster, Resource
from otel_ebpf_receiver.export.http.proxy import proxy_for
from otel_ebpf_receiver.export.otlp.answers import accepted_bytes, words_of
from otel_ebpf_receiver.export.otlp.credentials import RotatingTls
from otel_ebpf_receiver.export.otlp.options import Compression, OtlpOptions
from otel_ebpf_receiver.export.sender import Answer


class HttpTransport:
    """Fulfils `Transport`. Raises `ExportError` when the options' files cannot be used."""

    def __init__(
        self, options: OtlpOptions, signal: Signal, *, ignore: Register = register_nothing, unignore: Register = register_nothing
    ) -> None:
        self._poster = Poster(
            _resource(options, signal),
            accepted=lambda body: accepted_bytes(signal, body),
            words=words_of,
            ignore=ignore,
            unignore=unignore,
        )

    def send(self, body: bytes, limit_s: float | None = None) -> Answer:
        """Posts one encoded request."""
        return self._poster.post(body, limit_s)

    def abort(self) -> None:
        """Makes a running `send` return with RETRY."""
        self._poster.abort()

    def close(self) -> None:
        """Closes the connection and keeps it closed."""
        self._poster.close()


def _resource(options: OtlpOptions, signal: Signal) -> Resource:
    if options.endpoint.startswith("unix:"):
        socket_path = options.endpoint.removeprefix("unix:").removeprefix("//")
        target, path = Target("localhost", 0, unix_path=socket_path), f"/v1/{signal}"
    else:
        parts = urlsplit(options.endpoint)
        tls = RotatingTls(options) if options.is_secure else None
        host, port = parts.hostname or "localhost", parts.port or (443 if tls else 80)
        target = Target(host, port, tls=tls, proxy=proxy_for(parts.scheme, host, port, os.environ))
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Resource(
        target,
        path,
        {**dict(options.headers), "content-type": "application/x-protobuf"},
        is_gzip=options.compression is Compression.GZIP,
        timeout_s=options.timeout_s,
    )
