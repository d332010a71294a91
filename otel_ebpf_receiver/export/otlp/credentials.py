"""Reads the certificates that the options name. A missing or unreadable file is an error at start, never a silent use of other roots."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from dataclasses import dataclass, field

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.otlp.options import OtlpOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM bytes; None where the options name none (system roots, no client certificate)."""

    roots: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    chain: bytes | None = None


def read_credentials(options: OtlpOptions) -> Credentials:
    """The files of `options`, checked to belong together. Raises `ExportError` naming variable and file."""
    credentials = Credentials(
        roots=_read("CERTIFICATE", options.certificate),
        key=_read("CLIENT_KEY", options.client_key),
        chain=_read("CLIENT_CERTIFICATE", options.client_certificate),
    )
    tls_context(options)
    return credentials


class Files:
    """Tells when the files of the options are no longer those that were read: certificates are renewed while the agent runs."""

    def __init__(self, options: OtlpOptions) -> None:
        self._paths = [path for path in (options.certificate, options.client_key, options.client_certificate) if path is not None]
        self._seen = self._look()

    def have_changed(self) -> bool:
        """Whether they differ from what they were when this last said so."""
        now = self._look()
        has_changed, self._seen = now != self._seen, now
        return has_changed

    def _look(self) -> list[tuple[int, ...]]:
        out: list[tuple[int, ...]] = []
        for path in self._paths:
            try:
                found = os.stat(path)
                out.append((found.st_ino, found.st_mtime_ns, found.st_size))
            except OSError:
                out.append(())
        return out


class RotatingTls:
    """A verifying client context that is made anew, for the next connection, when its files have changed. While they cannot be used, half of
    a pair is written, say, the old ones go on. Raises `ExportError` at construction."""

    def __init__(self, options: OtlpOptions) -> None:
        self._options, self._files = options, Files(options)
        self._context = tls_context(options)
        self._is_stale = False

    def wrap_socket(self, sock: socket.socket, *, do_handshake_on_connect: bool, server_hostname: str | None) -> ssl.SSLSocket:
        """Like that of a context."""
        self._is_stale |= self._files.have_changed()
        if self._is_stale:
            try:
                self._context, self._is_stale = tls_context(self._options), False
            except ExportError as error:
                logger.warning("changed certificates cannot be used", extra={"reason": str(error)})
        return self._context.wrap_socket(sock, do_handshake_on_connect=do_handshake_on_connect, server_hostname=server_hostname)


def tls_context(options: OtlpOptions) -> ssl.SSLContext:
    """A verifying client context. Raises `ExportError` naming variable and file."""
    _read("CERTIFICATE", options.certificate)
    try:
        context = verifying_context(options.certificate)
    except (ssl.SSLError, OSError) as error:
        raise ExportError(f"OTEL_EXPORTER_OTLP_CERTIFICATE: '{options.certificate}' holds no PEM certificates: {error}") from error
    if options.client_certificate is not None:
        _read("CLIENT_CERTIFICATE", options.client_certificate)
        _read("CLIENT_KEY", options.client_key)
        try:
            # An empty password keeps OpenSSL from asking the terminal for the passphrase of an encrypted key.
            context.load_cert_chain(options.client_certificate, options.client_key, password="")
        except (ssl.SSLError, OSError) as error:
            pair = f"'{options.client_certificate}' with '{options.client_key}'"
            raise ExportError(f"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: {pair} is no usable PEM pair without passphrase: {error}") from error
    return context


def verifying_context(authorities: str | None = None) -> ssl.SSLContext:
    """A context that verifies servers by the file `authorities`, or by the system's."""
    context = ssl.create_default_context(cafile=authorities)
    # Python 3.13 refuses authorities that lack formal extensions, which private ones often do; gRPC and Python 3.11 accept them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read(name: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        variable = f"OTEL_EXPORTER_OTLP_{name}"
        raise ExportError(f"{variable}: '{path}' cannot be read ({error.strerror}); give a PEM file that the agent may read") from error
