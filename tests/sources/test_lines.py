"""Rows for people and JSON objects for replay say what the SERVER span says."""

from __future__ import annotations

import json

from otel_ebpf_receiver.sources.http.columns import HttpView
from otel_ebpf_receiver.sources.http.lines import Row, as_json, rows
from otel_ebpf_receiver.telemetry.columns import Records
from otel_ebpf_receiver.telemetry.workload import Workload
from tests.sources.line import Known, Ran, Views, run
from tests.sources.records import MS, START_NS, make


def shown(records: Records, identity: Known | None = None) -> tuple[list[Row], Ran]:
    """The rows of records, and the run that gave them."""
    views = Views()
    ran = run(records, watchers=[views], identity=identity)
    return [row for view in views.views if isinstance(view, HttpView) for row in rows(view)], ran


def test_json_is_the_server_span_with_the_clients_port_and_times() -> None:
    """Every attribute of the span by its name, then the four additions, all of them JSON."""
    (row,), ran = shown(make({"target": "/a?b", "flags": 1}))

    found = json.loads(json.dumps(as_json(row)))

    times = {"start_unix_nano": START_NS, "first_byte_unix_nano": START_NS + 3 * MS, "end_unix_nano": START_NS + 7 * MS}
    assert found == ran.attributes() | {"client.port": 40000} | times


def test_json_of_an_unanswered_exchange_has_no_first_byte() -> None:
    """What was not seen has no key; what went wrong has one."""
    (row,), _ = shown(make({"status": 0, "response_start_ns": 0, "error": 2, "side": 2}))

    found = as_json(row)

    assert "first_byte_unix_nano" not in found
    assert "http.response.status_code" not in found
    assert found["error.type"] == "connection_closed"


def test_a_row_is_one_readable_exchange() -> None:
    """Peers with ports, method, path, status, times and sizes; a known workload by namespace and name."""
    (row,), _ = shown(make({"target": "/a?b", "request_body": 3, "response_body": 9, "client": "2001:db8::1", "status": 503}))

    assert (row.client, row.server, row.method, row.path, row.status) == ("[2001:db8::1]:40000", "10.0.0.2:8080", "GET", "/a", 503)
    assert (row.ttfb_ns, row.duration_ns, row.request_bytes, row.response_bytes, row.error) == (3 * MS, 7 * MS, 3, 9, "503")
    (row,), _ = shown(
        make({"method": "BREW"}), Known(Workload({"service.name": "shop", "service.namespace": "prod"}), Workload({"service.name": "web"}))
    )
    assert (row.client, row.server, row.method) == ("web:40000", "prod/shop:8080", "BREW")


def test_a_connect_row_shows_where_it_goes() -> None:
    """CONNECT has no path; the row shows the authority."""
    (row,), _ = shown(make({"method": "CONNECT", "target": "db.example:5432"}))

    assert row.path == "db.example:5432"
