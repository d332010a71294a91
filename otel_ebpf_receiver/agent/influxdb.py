"""HTTP exchanges as the measurements `traffic` and `red` of InfluxDB: which attribute is which tag or field. Data only.

Names are those that users of earlier agents have dashboards for. A tag is from a closed set: what a client may choose freely (its port, the
path, the Host header) is a field here.
"""

from __future__ import annotations

from otel_ebpf_receiver.export.influxdb.columns import Column, Columns
from otel_ebpf_receiver.sources.http import names as http
from otel_ebpf_receiver.telemetry import names

COLUMNS = Columns(
    red_metric=http.SERVER_DURATION,
    resource_tags=(
        Column("podname", ("k8s.pod.name",)),
        Column("nodename", ("k8s.node.name", "host.name")),
        Column("namespace", ("k8s.namespace.name", names.SERVICE_NAMESPACE)),
        Column("servicename", (names.SERVICE_NAME,)),
    ),
    constants=(("type", "1"),),
    tags=(Column("method", (http.METHOD,)), Column("code", (http.STATUS, http.ERROR_TYPE))),
    fields=(Column("url", (http.URL_FULL, http.URL_PATH)),),
    server_fields=(
        Column("srcip", (http.PEER_ADDRESS,)),
        Column("srcport", (http.PEER_PORT,)),
        Column("dstip", (http.SERVER_ADDRESS,)),
        Column("dstport", (http.SERVER_PORT,)),
    ),
    client_tags=(Column("dstip", (http.PEER_ADDRESS,)), Column("dstport", (http.PEER_PORT,))),
)
