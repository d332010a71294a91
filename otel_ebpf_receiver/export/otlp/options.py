"""The OTLP exporter's options, from the standard `OTEL_EXPORTER_OTLP_*` variables by a pure function.

Reads no file and opens nothing; a file of the configuration joins in by being turned into the same variables underneath the environment.
Rules: https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and …/configuration/sdk-environment-variables/ (empty means unset,
timeouts are milliseconds and 0 is no limit).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.destination import Signal

TIMEOUT_MS = 10_000
HEADER_NAME = re.compile(r"[0-9a-z!#$%&'*+.^_`|~-]+")
GRPC_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
GRPC_TARGET = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock):\S+")
HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.%a-z]+\]|[^\s:/\[\]]+):\d{1,5}")


class Protocol(enum.StrEnum):
    """Values of `…_PROTOCOL` that this agent speaks."""

    GRPC = "grpc"
    HTTP = "http/protobuf"


class Compression(enum.StrEnum):
    """Values of `…_COMPRESSION`."""

    NONE = "none"
    GZIP = "gzip"


@dataclass(frozen=True, slots=True)
class OtlpOptions:
    """Options of one signal. `endpoint` is a URL or a gRPC target, for HTTP complete with its path; `timeout_s` None is no limit."""

    endpoint: str
    protocol: Protocol = Protocol.HTTP
    insecure: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout_s: float | None = TIMEOUT_MS / 1000
    compression: Compression = Compression.NONE
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken: https, or a gRPC target that neither names a scheme of its own security nor is said to be insecure."""
        scheme = self.endpoint.partition(":")[0].lower()
        if scheme in ("http", "https"):
            return scheme == "https"
        if scheme in ("unix", "unix-abstract"):
            return self.certificate is not None and not self.insecure
        return not self.insecure


@dataclass(frozen=True, slots=True)
class _Variables:
    """Looks a setting up in its per-signal form, then in the general one."""

    environ: Mapping[str, str]
    signal: Signal

    def find(self, name: str) -> tuple[str, str]:
        """The variable that is set and its value; ("…", "") where none is."""
        general = f"OTEL_EXPORTER_OTLP_{name}"
        special = f"OTEL_EXPORTER_OTLP_{self.signal.upper()}_{name}"
        for variable in (special, general):
            if value := self.environ.get(variable, "").strip():
                return variable, value
        return general, ""


def options_from_env(environ: Mapping[str, str], signal: Signal | str) -> OtlpOptions:
    """Options of `signal` ("traces" or "metrics"). Raises `ExportError` naming the variable and the remedy."""
    variables = _Variables(environ, Signal(signal))
    protocol = _protocol(*variables.find("PROTOCOL"))
    options = OtlpOptions(
        endpoint=_grpc_endpoint(variables) if protocol is Protocol.GRPC else _http_endpoint(variables),
        protocol=protocol,
        insecure=_boolean(*variables.find("INSECURE")),
        headers=_headers(*variables.find("HEADERS"), grpc=protocol is Protocol.GRPC),
        timeout_s=_timeout_s(*variables.find("TIMEOUT")),
        compression=_compression(*variables.find("COMPRESSION")),
        certificate=variables.find("CERTIFICATE")[1] or None,
        client_key=variables.find("CLIENT_KEY")[1] or None,
        client_certificate=variables.find("CLIENT_CERTIFICATE")[1] or None,
    )
    if (options.client_key is None) != (options.client_certificate is None):
        missing = "CLIENT_KEY" if options.client_key is None else "CLIENT_CERTIFICATE"
        raise ExportError(f"OTEL_EXPORTER_OTLP_{missing}: not set, but its counterpart is; set both for mutual TLS or neither")
    return options


def _protocol(variable: str, value: str) -> Protocol:
    try:
        return Protocol(value.lower()) if value else Protocol.HTTP
    except ValueError:
        raise ExportError(f"{variable}: '{value}' is not spoken; use grpc or http/protobuf") from None


def _compression(variable: str, value: str) -> Compression:
    try:
        return Compression(value.lower()) if value else Compression.NONE
    except ValueError:
        raise ExportError(f"{variable}: '{value}' is no compression; use gzip or none") from None


def _boolean(variable: str, value: str) -> bool:
    if value.lower() not in ("", "true", "false"):
        raise ExportError(f"{variable}: '{value}' is neither true nor false")
    return value.lower() == "true"


def _timeout_s(variable: str, value: str) -> float | None:
    if not value:
        return TIMEOUT_MS / 1000
    if not (value.isascii() and value.isdigit()):
        raise ExportError(f"{variable}: '{value}' is no timeout; expected whole milliseconds, e.g. 10000 for ten seconds (0: no limit)")
    return int(value) / 1000 or None


def _headers(variable: str, value: str, *, grpc: bool) -> tuple[tuple[str, str], ...]:
    """W3C Baggage form without properties: `name=value,name=value`, values percent-encoded. Values never enter a message."""
    headers: dict[str, str] = {}
    for number, member in enumerate(value.split(",") if value else (), 1):
        if not member.strip():
            continue
        name, equals, text = member.partition("=")
        name, text = unquote(name.strip()).lower(), unquote(text.strip())
        if not equals or not HEADER_NAME.fullmatch(name):
            raise ExportError(f"{variable}: entry {number} is not name=value; separate entries by commas, percent-encode commas in values")
        if not HEADER_VALUE.fullmatch(text):
            raise ExportError(f"{variable}: the value of '{name}' holds a control or non-ASCII character; a header cannot carry it")
        if grpc and (name.startswith("grpc-") or name.endswith("-bin") or not GRPC_HEADER_NAME.fullmatch(name)):
            raise ExportError(f"{variable}: gRPC cannot carry a header named '{name}'; choose another name or http/protobuf")
        headers[name] = text
    return tuple(headers.items())


def _url(variable: str, value: str) -> SplitResult | None:
    """The parts of an http(s) URL with a host and a valid port; None for anything else."""
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    if valid and (parts.username or parts.password):
        raise ExportError(f"{variable}: holds credentials; put them into OTEL_EXPORTER_OTLP_HEADERS")
    return parts if valid else None


def _http_endpoint(variables: _Variables) -> str:
    """The per-signal endpoint as it is, the general one with `v1/<signal>` appended; `unix:PATH` names a socket and takes no path."""
    variable, value = variables.find("ENDPOINT")
    path = f"v1/{variables.signal}"
    if not value:
        return f"http://localhost:4318/{path}"
    if value.startswith("unix:") and len(value) > len("unix:"):
        return value
    parts = _url(variable, value)
    if parts is None or parts.fragment:
        raise ExportError(f"{variable}: '{value}' is not a URL; expected http(s)://host:port[/path], e.g. http://localhost:4318")
    if variable == "OTEL_EXPORTER_OTLP_ENDPOINT":
        return parts._replace(path=f"{parts.path.rstrip('/')}/{path}").geturl()
    return parts._replace(path=parts.path or "/").geturl()


def _grpc_endpoint(variables: _Variables) -> str:
    """An http(s) URL, `host:port`, or a target of gRPC's own name syntax (`dns:///host:port`, `unix:path`).

    A URL without a port: https's own, which gRPC takes too, or the one of OTLP without TLS.
    """
    variable, value = variables.find("ENDPOINT")
    if not value:
        return "http://localhost:4317"
    if (parts := _url(variable, value)) is not None:
        port = "443" if parts.scheme == "https" else "4317"
        return f"{parts.scheme}://{parts.netloc if parts.port else parts.netloc.rstrip(':') + ':' + port}"
    if GRPC_TARGET.fullmatch(value) or HOST_PORT.fullmatch(value):
        return value
    raise ExportError(
        f"{variable}: '{value}' is no gRPC endpoint; expected http(s)://host:port, host:port "
        "(TLS unless OTEL_EXPORTER_OTLP_INSECURE=true), dns:///host:port or unix:///path"
    )
