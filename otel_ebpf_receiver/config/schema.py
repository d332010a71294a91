# ruff: noqa: RUF009 -- key(), table() and section() return dataclasses.field, which is what the rule asks for
"""Every setting of the agent: the one declaration. `load.py` reads files and variables by it, `show.py` prints it.

Nothing else may invent a key, a default or a variable's name. The own variable of `a.b_c` is OTEL_EBPF_RECEIVER_A_B_C.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import ClassVar, Literal

from otel_ebpf_receiver.config import checks
from otel_ebpf_receiver.config.key import key, section, table

MIB = 1 << 20
Network = IPv4Network | IPv6Network
Texts = tuple[str, ...]
_NOTHING: Mapping[str, str] = MappingProxyType({})


class TapMode(enum.Enum):
    """How the watched interfaces are chosen."""

    AUTO = "auto"
    HOST = "host"
    BRIDGE = "bridge"
    NAMES = "names"


@dataclass(frozen=True, slots=True)
class Taps:
    """`auto`, `host`, `bridge: NAME`, or names and globs; `names` belong to the last two."""

    mode: TapMode = TapMode.AUTO
    names: Texts = ()

    def __str__(self) -> str:
        return {TapMode.BRIDGE: f"bridge: {','.join(self.names)}", TapMode.NAMES: ",".join(self.names)}.get(self.mode, self.mode.value)


@dataclass(frozen=True, slots=True)
class Interfaces:
    """Names of interfaces, globs allowed."""

    include: Texts = key((), "Watch only these of the chosen interfaces.")
    exclude: Texts = key((), "Never watch these.")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses and networks, both IP versions."""

    include: tuple[Network, ...] = key(
        (), "Report only exchanges with one of these at either side. Everything else costs one lookup per packet."
    )
    exclude: tuple[Network, ...] = key(
        (), "Report no exchange with one of these at either side. Of several networks the narrowest decides."
    )


@dataclass(frozen=True, slots=True)
class Capture:
    """Where the agent listens."""

    taps: Taps = key(
        Taps(),
        "Interfaces to watch: `auto` (every interface that is up, and the host end of every pod's pair), `host` (the node's own, no pods), "
        "`bridge: NAME` (the ports of that bridge), or a list of names and globs. Nothing is ever made promiscuous.",
    )
    interfaces: Interfaces = section(Interfaces, "Narrows the choice by name.")
    addresses: Addresses = section(Addresses, "Narrows by address, in the kernel.")
    transport: Literal["ring", "hash"] = key(
        "ring",
        "How records leave the kernel: a BPF ring buffer, or a hash map that is walked and emptied.",
    )
    ring_bytes: int = key(
        16 * MIB,
        "Size of the ring of each source, a power of two. 16 MiB hold 250 ms of 100,000 exchanges a second.",
        unit="bytes",
        low=1 << 16,
        high=1 << 30,
        check=checks.power_of_two,
    )
    flows: int = key(
        65536,
        "Connections that are followed at once, about 300 bytes of kernel memory each; the longest unused goes first.",
        low=64,
        high=1 << 22,
    )
    pending: int = key(16384, "Requests without an answer that are remembered at once; those evicted are counted.", low=64, high=1 << 22)


@dataclass(frozen=True, slots=True)
class Http:
    """What is kept of each HTTP exchange."""

    target_bytes: int = key(
        256, "Bytes of the request target that are kept; longer ones are flagged `target_cut`.", unit="bytes", low=64, high=1024, multiple=8
    )
    headers: Texts = key(
        (),
        "Request headers to keep, 64 bytes of each. With x-forwarded-for or forwarded, client.address comes from it.",
        most=4,
        check=checks.header_names,
    )

    known_methods: Texts = key(
        ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"),
        "Methods that are told by name, case-sensitive; any other is `_OTHER`, its own text in http.request.method_original.",
        most=64,
        check=checks.methods,
        variables=("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS",),
    )


@dataclass(frozen=True, slots=True)
class Service:
    """A name for addresses, where Kubernetes gives none."""

    shorthand: ClassVar[str] = ""
    name: str = key("", "service.name of what answers there.", check=checks.not_empty)
    namespace: str = key("", "service.namespace.")
    addresses: tuple[Network, ...] = key((), "Addresses and networks; empty: any.")
    ports: tuple[int, ...] = key((), "Ports that it listens on; empty: any.", low=1, high=65535)


@dataclass(frozen=True, slots=True)
class Route:
    """A path pattern. Written as text it is the pattern alone."""

    shorthand: ClassVar[str] = "pattern"
    pattern: str = key("", "`/users/{id}`; `*` is one segment, `**` any number of them.", check=checks.pattern)
    service: str = key("", "Only for this service.name, glob allowed; empty: for all.")


@dataclass(frozen=True, slots=True)
class Templating:
    """Routes guessed from paths that no pattern matches."""

    enabled: bool = key(
        False, "Replace numbers, UUIDs, hashes and long tokens of unknown paths by placeholders and use the result as http.route."
    )
    limit: int = key(200, "Templates per service; what comes later is one overflow value.", low=1, high=10_000)


@dataclass(frozen=True, slots=True)
class Query:
    """Query strings, which often hold secrets."""

    enabled: bool = key(False, "Export url.query, and the query in url.full.")
    masked: Texts = key(
        (
            "*token*",
            "*passw*",
            "pass",
            "passcode",
            "passphrase",
            "pwd",
            "*secret*",
            "*signature*",
            "sig",
            "*[_-]sig",
            "key",
            "*api?key*",
            "*apikey*",
            "*access?key*",
            "*accesskey*",
            "*private?key*",
            "code",
            "auth",
            "auth[!o]*",
            "authorization",
            "oauth*",
            "*credential*",
            "*csrf*",
            "*xsrf*",
            "*sess*id",
            "jwt",
            "AWSAccessKeyId",
            "X-Amz-*",
            "X-Goog-*",
        ),
        "Parameters whose value is replaced by REDACTED; globs, any case, compared with the percent-decoded name.",
    )


@dataclass(frozen=True, slots=True)
class Keep:
    """Spans that are kept although the sampler would drop them; marked by an attribute."""

    errors: float = key(0.0, "Share of the exchanges with a 5xx status or an error.", low=0, high=1)
    slow: float = key(0.0, "Share of the exchanges slower than `slow_s`.", low=0, high=1)
    slow_s: float = key(1.0, "What is slow.", unit="s", low=0)


SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
    "consistent_probability",
)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which exchanges become spans. Metrics count all of them."""

    sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
        "consistent_probability",
    ] = key(
        "parentbased_always_on",
        "The standard samplers, and `consistent_probability` (tracestate `ot=th:…`).",
        variables=("OTEL_TRACES_SAMPLER",),
    )
    argument: float = key(
        1.0, "Share of the traces, for the samplers that take one.", low=0, high=1, variables=("OTEL_TRACES_SAMPLER_ARG",)
    )
    spans_per_second: int = key(1000, "Cap of the whole agent, held by lowering the probability; 0: none.", low=0)
    keep: Keep = section(Keep, "Exceptions.")


@dataclass(frozen=True, slots=True)
class Metrics:
    """RED metrics."""

    interval_s: float = key(60.0, "Time between two exports.", unit="s", low=0.1, variables=("OTEL_METRIC_EXPORT_INTERVAL",))
    temporality: Literal["cumulative", "delta", "lowmemory"] = key(
        "cumulative",
        "What a point counts: all since the start, or since the last export.",
        variables=("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",),
    )
    histogram: Literal["explicit_bucket_histogram", "base2_exponential_bucket_histogram"] = key(
        "explicit_bucket_histogram",
        "Kind of the duration histograms.",
        variables=("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",),
    )
    bounds_s: tuple[float, ...] = key(
        (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
        "Bucket bounds of durations; the default is the conventions'.",
        unit="s",
        check=checks.rising,
        low=0,
    )
    body_sizes: bool = key(False, "Also http.server.request.body.size and the like.")
    size_bounds_bytes: tuple[int, ...] = key(
        (0, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216),
        "Bucket bounds of body sizes.",
        unit="bytes",
        check=checks.rising,
        low=0,
    )
    active_requests: bool = key(False, "Also http.server.active_requests and http.client.active_requests: requests without an answer.")
    time_to_first_byte: bool = key(False, "Also the time from the request's last byte to the answer's first.")
    series_limit: int = key(2000, "Series per workload and instrument; what comes later is one series with otel.metric.overflow.", low=1)
    memory_bytes: int = key(64 * MIB, "Memory of all series together.", unit="bytes", low=MIB)
    idle_s: float = key(
        900.0, "A series that saw nothing for so long leaves, after its last value was accepted; 0: never.", unit="s", low=0
    )


@dataclass(frozen=True, slots=True)
class Spans:
    """Which spans are made, and how often they leave."""

    interval_s: float = key(5.0, "Longest time that a span waits in the agent.", unit="s", low=0.05, variables=("OTEL_BSP_SCHEDULE_DELAY",))
    ignored_agents: Texts = key(
        ("kube-probe/*",), "User-Agents (globs) whose exchanges make no spans; they stay in the metrics and are counted."
    )


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What is made of the exchanges."""

    disabled: bool = key(False, "Export nothing at all.", variables=("OTEL_SDK_DISABLED",))
    service_name: str = key(
        "", "Names the agent's own telemetry and host traffic that has no name; never a known workload.", variables=("OTEL_SERVICE_NAME",)
    )
    resource_attributes: Mapping[str, str] = table(
        _NOTHING,
        "Added to every Resource; overrides no identity. Its service.name counts as `service_name` where that is not set.",
        variables=("OTEL_RESOURCE_ATTRIBUTES",),
    )
    routes: tuple[Route, ...] = key((), "Path patterns that give http.route and url.template. The first that matches wins.")
    templating: Templating = section(Templating, "Guessed routes.")
    query: Query = section(Query, "Query strings.")
    sampling: Sampling = section(Sampling, "Sampling of spans.")
    metrics: Metrics = section(Metrics, "Metrics.")
    spans: Spans = section(Spans, "Spans.")


Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip"]


@dataclass(frozen=True, slots=True)
class OtlpTraces:
    """Overrides for spans; absent: as above."""

    endpoint: str | None = key(
        None, "Used as it is, path included.", check=checks.endpoint, variables=("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",)
    )
    protocol: Protocol | None = key(None, "Protocol.", variables=("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",))
    headers: Mapping[str, str] | None = key(
        None, "Headers.", is_secret=True, check=checks.headers, variables=("OTEL_EXPORTER_OTLP_TRACES_HEADERS",)
    )
    certificate: str | None = key(None, "CA file.", variables=("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",))
    client_key: str | None = key(None, "Key file.", variables=("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",))
    client_certificate: str | None = key(None, "Certificate file.", variables=("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",))
    compression: Compression | None = key(None, "Compression.", variables=("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",))
    timeout_s: float | None = key(None, "Timeout.", unit="s", low=0, variables=("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",))
    insecure: bool | None = key(None, "Without TLS.", variables=("OTEL_EXPORTER_OTLP_TRACES_INSECURE",))


@dataclass(frozen=True, slots=True)
class OtlpMetrics:
    """Overrides for metrics; absent: as above."""

    endpoint: str | None = key(
        None, "Used as it is, path included.", check=checks.endpoint, variables=("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",)
    )
    protocol: Protocol | None = key(None, "Protocol.", variables=("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",))
    headers: Mapping[str, str] | None = key(
        None, "Headers.", is_secret=True, check=checks.headers, variables=("OTEL_EXPORTER_OTLP_METRICS_HEADERS",)
    )
    certificate: str | None = key(None, "CA file.", variables=("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",))
    client_key: str | None = key(None, "Key file.", variables=("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",))
    client_certificate: str | None = key(None, "Certificate file.", variables=("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",))
    compression: Compression | None = key(None, "Compression.", variables=("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",))
    timeout_s: float | None = key(None, "Timeout.", unit="s", low=0, variables=("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",))
    insecure: bool | None = key(None, "Without TLS.", variables=("OTEL_EXPORTER_OTLP_METRICS_INSECURE",))


@dataclass(frozen=True, slots=True)
class Otlp:
    """OTLP, to a Collector or any backend."""

    endpoint: str | None = key(
        None,
        "http(s)://host:port; /v1/traces and /v1/metrics are appended for http/protobuf.",
        check=checks.endpoint,
        variables=("OTEL_EXPORTER_OTLP_ENDPOINT",),
    )
    protocol: Protocol = key("http/protobuf", "Protocol.", variables=("OTEL_EXPORTER_OTLP_PROTOCOL",))
    headers: Mapping[str, str] = table(
        _NOTHING, "Sent with every request.", is_secret=True, check=checks.headers, variables=("OTEL_EXPORTER_OTLP_HEADERS",)
    )
    certificate: str | None = key(
        None, "File with the certificates (PEM) that the server's is checked against.", variables=("OTEL_EXPORTER_OTLP_CERTIFICATE",)
    )
    client_key: str | None = key(None, "File with the key (PEM) for mutual TLS.", variables=("OTEL_EXPORTER_OTLP_CLIENT_KEY",))
    client_certificate: str | None = key(
        None, "File with the certificate (PEM) for mutual TLS.", variables=("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",)
    )
    compression: Compression = key(
        "none", "`gzip` costs about 3 µs a span and makes it six times smaller.", variables=("OTEL_EXPORTER_OTLP_COMPRESSION",)
    )
    timeout_s: float = key(10.0, "Longest time of one request; 0: no limit.", unit="s", low=0, variables=("OTEL_EXPORTER_OTLP_TIMEOUT",))
    insecure: bool = key(False, "gRPC to an endpoint without scheme goes without TLS.", variables=("OTEL_EXPORTER_OTLP_INSECURE",))
    traces: OtlpTraces = section(OtlpTraces, "Spans differently.")
    metrics: OtlpMetrics = section(OtlpMetrics, "Metrics differently.")


@dataclass(frozen=True, slots=True)
class Queues:
    """What waits while a backend does not take it. The oldest goes first, counted."""

    spans_bytes: int = key(32 * MIB, "Encoded spans.", unit="bytes", low=8 * MIB)
    metrics_bytes: int = key(8 * MIB, "Encoded metrics.", unit="bytes", low=4 * MIB)
    spans: int = key(
        0,
        "Number of spans, beside the bytes; 0: no such limit. A quarter of it leaves as soon as it waits.",
        low=0,
        variables=("OTEL_BSP_MAX_QUEUE_SIZE",),
    )


@dataclass(frozen=True, slots=True)
class Console:
    """One line per exchange on standard output."""

    enabled: bool | None = key(None, "Absent: only when nothing else is exported to.")
    format: Literal["auto", "lines", "json"] = key("auto", "`lines` for people, `json` for programs; `auto`: lines.")
    only: Literal["", "2xx", "3xx", "4xx", "5xx", "errors", "error"] = key("", "Show only these: by class of status, or what failed.")
    path: str = key("", "Show only paths that match this glob.")
    service: str = key("", "Show only exchanges with this service at either side, by name or namespace/name.")


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A scrape endpoint for the RED metrics."""

    host: str = key("localhost", "Address to listen on.", variables=("OTEL_EXPORTER_PROMETHEUS_HOST",))
    port: int = key(9464, "Port to listen on.", low=0, high=65535, variables=("OTEL_EXPORTER_PROMETHEUS_PORT",))


@dataclass(frozen=True, slots=True)
class Influxdb:
    """InfluxDB's line protocol, version 2."""

    url: str = key("", "http(s)://host:port.", check=checks.url)
    token: str = key("", "Token.", is_secret=True)
    org: str = key("", "Organisation.")
    bucket: str = key("", "Bucket.")
    interval_s: float = key(60.0, "Time between two points of `red`.", unit="s", low=1)


@dataclass(frozen=True, slots=True)
class Exporters:
    """Where telemetry goes; several at once."""

    traces: tuple[Literal["otlp", "console", "influxdb", "none"], ...] = key(
        (), "Exporters of spans. Empty: otlp when it has an endpoint, else the console.", variables=("OTEL_TRACES_EXPORTER",)
    )
    metrics: tuple[Literal["otlp", "console", "prometheus", "influxdb", "none"], ...] = key(
        (), "Exporters of metrics. Empty: otlp when it has an endpoint.", variables=("OTEL_METRICS_EXPORTER",)
    )
    otlp: Otlp = section(Otlp, "OTLP.")
    console: Console = section(Console, "The console.")
    prometheus: Prometheus = section(Prometheus, "Prometheus.")
    influxdb: Influxdb = section(Influxdb, "InfluxDB.")
    queues: Queues = section(Queues, "Bounds of the queues of otlp, prometheus and influxdb, for each of them.")


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Kubernetes namespaces, globs allowed."""

    include: Texts = key((), "Report only workloads of these.")
    exclude: Texts = key((), "Report none of these.")


@dataclass(frozen=True, slots=True)
class Instrumented:
    """Workloads that an OpenTelemetry SDK already instruments."""

    spans: Literal["drop", "keep"] = key("drop", "Spans of ours beside the SDK's.")
    metrics: Literal["drop", "keep"] = key("drop", "HTTP metrics of ours beside the SDK's.")


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """Who is behind an address, from the API server."""

    enabled: bool | None = key(None, "Absent: when there are a service account or a kubeconfig, and this node's name.")
    kubeconfig: str = key("", "File for use outside a cluster.", variables=("KUBECONFIG",))
    node_name: str = key("", "This node's name; without it Kubernetes is off.", variables=("K8S_NODE_NAME",))
    cluster_name: str = key("", "k8s.cluster.name.")
    peers: Literal["auto", "pods", "services"] = key("auto", "What remote addresses are named from; `auto`: pods up to 2,000 of them.")
    namespaces: Namespaces = section(Namespaces, "Which workloads.")
    pod_labels: Texts = key((), "Pod labels (globs) that become k8s.pod.label.*.")
    pod_annotations: Texts = key((), "Pod annotations (globs) that become k8s.pod.annotation.*.")
    name_from_labels: bool = key(False, "service.name from app.kubernetes.io/instance and /name, where no annotation gives it.")
    agents_service: str = key("", "namespace/name of the headless Service of the agents: which nodes run one.")
    wait_s: float = key(2.0, "How long an exchange of a pod not known yet waits for its name.", unit="s", low=0, high=30)
    grace_s: float = key(60.0, "How long an ended pod keeps its address, for late exchanges.", unit="s", low=0)
    instrumented: Instrumented = section(Instrumented, "Against duplicates.")


@dataclass(frozen=True, slots=True)
class Status:
    """The agent's own server: /healthz, /readyz, /metrics."""

    enabled: bool = key(False, "Serve them.")
    page: bool = key(False, "Serve the live page too, at `/`. It shows paths, so only on a loopback address.")
    host: str = key("127.0.0.1", "Address to listen on.")
    port: int = key(14318, "Port to listen on.", low=0, high=65535)


@dataclass(frozen=True, slots=True)
class Ids:
    """Trace and span ids without coordination."""

    key: str = key(
        "",
        "Agents of the same key give the same exchange the same ids. Empty: made from the cluster's uid with Kubernetes, random at each start without.",
        is_secret=True,
    )


@dataclass(frozen=True, slots=True)
class Logging:
    """The agent's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = key(
        "info",
        "Least level shown. The variable may also say trace, warn and fatal, as OpenTelemetry names severities: debug, warning and error.",
        variables=("OTEL_LOG_LEVEL",),
        also=(("trace", "debug"), ("warn", "warning"), ("fatal", "error")),
    )
    format: Literal["auto", "text", "json"] = key("auto", "`auto`: text on a terminal, JSON elsewhere.")


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    capture: Capture = section(Capture, "Where the agent listens.")
    http: Http = section(Http, "What is kept of each HTTP exchange.")
    services: tuple[Service, ...] = key((), "Names for addresses, where Kubernetes gives none.")
    telemetry: Telemetry = section(Telemetry, "What is made of the exchanges.")
    exporters: Exporters = section(Exporters, "Where telemetry goes.")
    kubernetes: Kubernetes = section(Kubernetes, "Who is behind an address, from the Kubernetes API.")
    status: Status = section(Status, "The agent's own server.")
    ids: Ids = section(Ids, "Trace and span ids.")
    logging: Logging = section(Logging, "The agent's own log.")
