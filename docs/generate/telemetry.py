"""The telemetry reference: what is exported, by the names that the code uses. `tests/docs` holds it against what is emitted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from opentelemetry.semconv._incubating.attributes.otel_attributes import OTEL_SPAN_SAMPLING_RESULT

from docs.generate.own import own_instruments
from otel_ebpf_receiver.agent.influxdb import COLUMNS
from otel_ebpf_receiver.export.influxdb.columns import Column
from otel_ebpf_receiver.identity.kubernetes.attributes import Cluster, resource
from otel_ebpf_receiver.identity.kubernetes.objects import Container, Owner, Pod, Wanted
from otel_ebpf_receiver.kernel.assemble import bpf_directory
from otel_ebpf_receiver.sources.http import names as http
from otel_ebpf_receiver.sources.http.instruments import all_instruments
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.http.record import Flag
from otel_ebpf_receiver.status.exposition import metric_name
from otel_ebpf_receiver.telemetry import names

BOTH, SERVER, CLIENT = "both", "server", "client"


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a span: on which kind, when, what it says."""

    name: str
    kind: str
    when: str
    text: str


SPAN = (
    Attribute(http.METHOD, BOTH, "always", "The method; `_OTHER` for one that is not in `http.known_methods`."),
    Attribute(http.METHOD_ORIGINAL, BOTH, "`_OTHER`", "The method as it was on the wire."),
    Attribute(http.STATUS, BOTH, "answered", "The status of the final response. Never invented."),
    Attribute(
        http.ERROR_TYPE, BOTH, "error", "The status as text (5xx; on CLIENT spans 4xx too), `connection_reset` or `connection_closed`."
    ),
    Attribute(http.ROUTE, SERVER, "by `telemetry.routes` or templating", "The route. Never a raw path."),
    Attribute(http.URL_TEMPLATE, CLIENT, "by `telemetry.routes` or templating", "The same on the asking side."),
    Attribute(
        http.URL_SCHEME,
        SERVER,
        "always",
        "`http`, or what an absolute target says. Metrics tell `http`, `https`, `ws`, `wss` and `ftp` apart; any other is `_OTHER` there.",
    ),
    Attribute(http.URL_PATH, SERVER, "but for CONNECT", "The path, up to `http.target_bytes`."),
    Attribute(
        http.URL_QUERY,
        SERVER,
        "`telemetry.query.enabled`",
        "The query, with secrets masked: tokens, passwords, keys, signatures by the names in `telemetry.query.masked`.",
    ),
    Attribute(http.URL_FULL, CLIENT, "always", "The URL; with its query only where queries are on."),
    Attribute(http.PROTOCOL_VERSION, BOTH, "always", "`1.0` or `1.1`."),
    Attribute(
        http.SERVER_ADDRESS, BOTH, "always", "Host, or the authority of an absolute target; a known address by its name; else the address."
    ),
    Attribute(
        http.SERVER_PORT,
        BOTH,
        "but for a scheme without a usual port",
        "The port in Host, else the scheme's usual one; without a usable Host the connection's.",
    ),
    Attribute(
        http.CLIENT_ADDRESS,
        SERVER,
        "always",
        "The peer; with the header configured the first address of Forwarded or X-Forwarded-For, if it stands whole in the kept bytes.",
    ),
    Attribute(http.PEER_ADDRESS, BOTH, "always", "The other end as the wire shows it."),
    Attribute(http.PEER_PORT, BOTH, "always", "Its port."),
    Attribute(http.USER_AGENT, BOTH, "sent", "User-Agent, its first 88 bytes."),
    Attribute(http.REQUEST_BODY, BOTH, "always", "Bytes of the request's body as transferred, without chunk framing."),
    Attribute(http.RESPONSE_BODY, BOTH, "answered", "Bytes of the response's body, likewise."),
    Attribute(http.REQUEST_HEADER + "NAME", BOTH, "`http.headers`", "A configured request header, its first 64 bytes."),
    Attribute(http.REQUEST_TRANSFER, BOTH, "always", "First to last byte of the request, ns."),
    Attribute(http.RESPONSE_WAIT, BOTH, "always", "Last byte of the request to first of the response, ns; without an answer to the end."),
    Attribute(http.RESPONSE_TRANSFER, BOTH, "always", "First to last byte of the response, ns. The three add up to the span's duration."),
    Attribute(http.CLOSED_BY, BOTH, "cut off", "Who ended the connection: `client` or `server`."),
    Attribute(http.FLAGS, BOTH, "anything unusual", "What is uncertain or unusual: see below."),
    Attribute(names.SERVICE_PEER_NAME, BOTH, "peer known", "`service.name` of the other side."),
    Attribute(names.SERVICE_PEER_NAMESPACE, BOTH, "peer known", "`service.namespace` of the other side."),
    Attribute(names.PEER_SERVICE, BOTH, "peer known", "As `service.peer.name`, for service graphs that look for this one."),
    Attribute(names.KEPT, BOTH, "kept by rule", "`error` or `slow`: the sampler alone would have dropped it."),
    Attribute(names.PROBABILITY, BOTH, "under the cap", "Share of the spans that the agent's cap let through then."),
)
FLAGS = {
    Flag.TARGET_CUT: "The target was longer than what is kept.",
    Flag.UNCERTAIN_END: "The end of the response is not certain; times of the end may be early.",
    Flag.UNCERTAIN_SIZE: "A body's size counts what was seen, and more may have passed.",
    Flag.RESYNCHRONISED: "Something was lost before it on the connection; the pairing was found again with certainty.",
    Flag.PIPELINED: "The request came before the answer to the one before it.",
    Flag.INTERIM: "There were 1xx responses before the final one.",
}
RESOURCE = (
    (names.SERVICE_NAME, "The workload; `unknown_service` (or `telemetry.service_name`) for host traffic that has no name."),
    (names.SERVICE_NAMESPACE, "Where known."),
    (
        "service.instance.id",
        "The instance: for host traffic the host's name, for a named service of the configuration `namespace.name.host`.",
    ),
    ("host.name", "This host."),
    (names.SDK_NAME, "`otel_ebpf_receiver`. There is no `telemetry.sdk.language`."),
    (names.SDK_VERSION, "The agent's version."),
)
_SDK = ("otel.component.name", "otel.component.type", "error.type")
LABELS: dict[str, dict[str, str]] = {
    "otel_ebpf_receiver.kernel": {"event": "see below"},
    "otel_ebpf_receiver.records": {"fate": "received, copies, exports, admitted"},
    "otel_ebpf_receiver.records.patience": {"fate": "waited, hurried"},
    "otel_ebpf_receiver.spans": {"fate": "encoded, sampled_out, silenced, ignored"},
    "otel_ebpf_receiver.taps": {"state": "attached, failed, one_way"},
    "otel_ebpf_receiver.identity": {"fate": "identified, unnamed_peers, deselected, instrumented_spans, instrumented_metrics"},
    **{f"otel_ebpf_receiver.kubernetes.{name}": {"kind": "of object"} for name in ("objects", "events", "bad_objects", "failures")},
}
"""Attributes of the agent's own metrics and their values, beside those of exporters."""
_COUNTER = re.compile(r"^\s*(?:COUNT|OUTCOME)\((\w+)\)\s*(?:/\* (.+?) \*/)?", re.MULTILINE)


def page() -> str:
    """The whole page."""
    return "\n".join(_page())


def _page() -> Iterator[str]:
    yield "# Telemetry\n\n<!-- Made by `scripts/docs` from the code. -->\n"
    yield f"Semantic conventions: `{names.SCHEMA_URL}`, on every Resource and Scope. Scope: `{names.SCOPE_NAME}`.\n"
    yield "## Spans\n"
    yield (
        "One SERVER span for an exchange that a workload here answered, one CLIENT span for one that it asked; on a plain host without names\n"
        "the SERVER span alone. The name is the method and the route, or the method. Status is error for 5xx and what was cut off; on CLIENT\n"
        "spans for 4xx too; what the client cut off is no error of the SERVER span. Times are those of the first byte of the request and the\n"
        "last of the response at the interface.\n"
    )
    yield _table(("attribute", "span", "when", ""), [(f"`{one.name}`", one.kind, one.when, one.text) for one in SPAN])
    yield "### Flags\n"
    yield _table(("flag", ""), [(f"`{str(flag.name).lower()}`", text) for flag, text in FLAGS.items()])
    yield "## Resources\n\nOne per workload. `telemetry.resource_attributes` adds to all, and overrides nothing.\n"
    yield _table(("attribute", ""), [(f"`{name}`", text) for name, text in RESOURCE])
    yield "A workload that Kubernetes names has these of the following that it has a value for, its owners by kind:\n"
    yield f"{_listed(list(kubernetes()))}.\n"
    yield (
        "`service.name` is the annotation `resource.opentelemetry.io/service.name`, else (if `kubernetes.name_from_labels`) the labels\n"
        "`app.kubernetes.io/instance` and `/name`, else the owner's name, else the pod's. Every annotation `resource.opentelemetry.io/KEY` becomes KEY.\n"
    )
    yield "## Metrics\n"
    yield from _metrics()
    yield "## The agent's own telemetry\n"
    yield from _own()
    yield "## InfluxDB\n"
    yield from _influxdb()


def kubernetes() -> tuple[str, ...]:
    """Keys that a pod's Resource can have, from pods that have everything."""
    wanted = Wanted(("KEY",), ("KEY",))
    more = {"KEY": "value"}
    pod = Pod("uid", "ns", "pod", "node", address_text="10.0.0.1", start_text="2026", labels=more, annotations=more)
    image = Container("main", "web:1.2")
    kinds = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "CronJob", "Job")
    owners = tuple(Owner(kind, "name", "uid") for kind in kinds)
    return tuple(resource(pod, image, owners, Cluster(uid="uid", name="name", wanted=wanted)))


def _metrics() -> Iterator[str]:
    always = {one.name for one in all_instruments(HttpOptions())}
    rows = []
    switches = {"By": "`metrics.body_sizes`", "s": "`metrics.time_to_first_byte`", "{request}": "`metrics.active_requests`"}
    for one in all_instruments(HttpOptions(body_sizes=True, first_byte=True, active=True)):
        switch = "always" if one.name in always else switches[one.unit]
        rows.append((f"`{one.name}`", one.unit, f"`{metric_name(one.name, one.unit, is_counter=False)}`", switch, one.description))
    yield (
        "Histograms over every exchange, sampled or not. `active_requests` is a sum that goes up and down: of the moment at which an interval is\n"
        "collected, the requests whose head was seen whole and that have no final answer yet; 0 again when there are none.\n"
    )
    yield _table(("metric", "unit", "in Prometheus", "when", ""), rows)
    server = [http.METHOD, http.STATUS, http.ERROR_TYPE, http.ROUTE, http.PROTOCOL_VERSION, http.URL_SCHEME]
    client = [http.METHOD, http.STATUS, http.ERROR_TYPE, http.URL_TEMPLATE, http.PROTOCOL_VERSION, http.SERVER_ADDRESS, http.SERVER_PORT]
    yield f"Attributes of `http.server.*`: {_listed(server)}.\n"
    yield f"Attributes of `http.client.*`: {_listed(client)}.\n"
    yield f"Of these, `active_requests` has {_listed(server[:1] + server[-1:])} and {_listed(client[:1] + client[-2:])}.\n"
    yield (
        f"Beyond `telemetry.metrics.series_limit` series per workload and instrument observations go to one series with `{names.METRIC_OVERFLOW}`.\n"
        "In Prometheus `job` is `service.namespace/service.name` and `instance` is `service.instance.id`.\n"
    )


def _own() -> Iterator[str]:
    yield (
        "Over OTLP as a Resource of its own (`service.name` is `otel-ebpf-receiver`, unless `telemetry.service_name` says otherwise), and on the status\n"
        "server's `/metrics` in Prometheus' names.\n"
    )
    rows = []
    for one in own_instruments():
        made = one.instrument
        text = f"{made.description}{f' Where {one.when} is on.' if one.when else ''}"
        rows.append((f"`{made.name}`", made.kind.value, f"`{one.prometheus}`", _attributes(made.name), text))
    yield _table(("metric", "kind", "in Prometheus", "attributes", ""), rows)
    yield "### Events of `otel_ebpf_receiver.kernel`\n"
    for file, prefix, text in (("counters.h", "", "Packets and connections, at all taps."), ("http/counters.h", "http_", "HTTP.")):
        found = _COUNTER.findall((bpf_directory() / file).read_text())
        yield text + "\n"
        yield _table(("event", ""), [(f"`{prefix}{name}`", words or "likewise") for name, words in found])


def labels(name: str) -> dict[str, str]:
    """Attributes of one of the agent's own metrics, with their values where these are a closed set."""
    if name.startswith("otel.sdk.span."):
        return {OTEL_SPAN_SAMPLING_RESULT: "RECORD_AND_SAMPLE, DROP"}
    if name.startswith("otel.sdk.metric_reader."):
        return dict.fromkeys(_SDK[:2], "")
    if name.startswith("otel.sdk."):
        return dict.fromkeys(_SDK, "")
    if name.startswith("otel_ebpf_receiver.export."):
        return {"destination": "", "signal": "traces, metrics, lines"}
    return LABELS.get(name, {})


def _attributes(name: str) -> str:
    return "; ".join(f"`{key}`{': ' if text else ''}{text}" for key, text in labels(name).items())


def _influxdb() -> Iterator[str]:
    """The measurements, by their columns."""

    def rows(part: str, columns: tuple[Column, ...]) -> list[tuple[str, str, str]]:
        return [(f"`{one.name}`", part, ", else ".join(f"`{name}`" for name in one.attributes)) for one in columns]

    of_both = rows("tag", (*COLUMNS.resource_tags, *COLUMNS.tags)) + rows("field", COLUMNS.fields)
    of_server = rows("tag, flow 0", COLUMNS.server_tags) + rows("field, flow 0", COLUMNS.server_fields)
    of_client = rows("tag, flow 1", COLUMNS.client_tags) + rows("field, flow 1", COLUMNS.client_fields)
    fixed = [(f"`{name}`", "tag", f"`{value}`") for name, value in COLUMNS.constants]
    yield "With `--exporter influxdb`. `traffic` is one point per span; `flow` is 0 where the workload answered, 1 where it asked. The time is the"
    yield "start; spans of the same tags that began together (pipelined requests) are a nanosecond apart, since a server would keep one of them.\n"
    yield _table(
        ("`traffic`", "", "from"),
        [*fixed, ("`flow`", "tag", "kind of the span"), *of_both, *of_server, *of_client, ("`duration`", "field", "ms")],
    )
    yield f"`red` is one point per interval and set of tags, from `{COLUMNS.red_metric}`.\n"
    red = [("`qps`", "field", "exchanges a second"), ("`errrate`", "field", "%"), ("`duration`", "field", "mean, ms")]
    yield _table(("`red`", "", "from"), [*rows("tag", COLUMNS.resource_tags), *red])


def _listed(many: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in many)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
