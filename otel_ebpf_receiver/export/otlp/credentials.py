"""Reads the certificates that the options name. A missing or unreadable file is an error at start, never a silent use of other roots."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.otlp.options import OtlpOptions


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
