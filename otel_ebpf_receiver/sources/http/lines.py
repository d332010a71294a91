"""Exchanges for people and for `replay`: one plain row each. The only place of this source that makes an object per exchange; nothing on the
main path uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from otel_ebpf_receiver.sources.http import names
from otel_ebpf_receiver.sources.http.attributes import flag_names
from otel_ebpf_receiver.sources.http.authority import address_text
from otel_ebpf_receiver.sources.http.columns import HttpView
from otel_ebpf_receiver.sources.source import Rows
from otel_ebpf_receiver.telemetry import names as general
from otel_ebpf_receiver.telemetry.columns import AttributeValue, Kind, SpanColumns


@dataclass(frozen=True, slots=True)
class Row:
    """One exchange. Times and durations in ns; `status` and `ttfb_ns` are None without an answer. `attributes`: those of its SERVER span."""

    time_unix_ns: int
    client: str
    server: str
    method: str
    path: str
    status: int | None
    ttfb_ns: int | None
    duration_ns: int
    request_bytes: int
    response_bytes: int
    error: str | None
    flags: tuple[str, ...]
    client_port: int
    attributes: Mapping[str, AttributeValue]


def rows(view: HttpView, chosen: Rows | None = None) -> Iterator[Row]:
    """A row per exchange of an attached view, in the order of the records; `chosen`: only of these."""
    which = np.arange(len(view.status)) if chosen is None else chosen
    if not which.size:
        return
    columns = view.spans(Kind.SERVER, which)
    for at, row in enumerate(which.tolist()):
        yield _row(view, attributes(columns, at), row)


def as_json(row: Row) -> dict[str, object]:
    """What `replay` prints: attributes of the SERVER span by their names, the client's port and times; what is absent has no key."""
    out: dict[str, object] = {key: list(value) if isinstance(value, tuple) else value for key, value in row.attributes.items()}
    out[names.CLIENT_PORT] = row.client_port
    out["start_unix_nano"] = row.time_unix_ns
    if row.ttfb_ns is not None:
        out["first_byte_unix_nano"] = row.time_unix_ns + row.ttfb_ns
    out["end_unix_nano"] = row.time_unix_ns + row.duration_ns
    return out


def attributes(columns: SpanColumns, row: int) -> dict[str, AttributeValue]:
    """All attributes of one row of span columns."""
    out: dict[str, AttributeValue] = {}
    for group in columns.groups:
        out |= group.build(row).attributes
    for integer in columns.integers:
        if integer.present is None or integer.present[row]:
            out[integer.name] = int(integer.values[row])
    for text in columns.texts:
        if text.present is None or text.present[row]:
            begin = text.prefix.build(row) if text.prefix is not None else b""
            out[text.name] = (begin + text.matrix[row, : text.lengths[row]].tobytes()).decode()
    return out


def _row(view: HttpView, found: Mapping[str, AttributeValue], row: int) -> Row:
    is_answered = bool(view.answered[row])
    path = found.get(names.URL_PATH) or view.server.text(row)
    query = found.get(names.URL_QUERY)
    return Row(
        time_unix_ns=int(view.start_unix_ns[row]),
        client=_end(view, row, is_server=False),
        server=_end(view, row, is_server=True),
        method=str(found.get(names.METHOD_ORIGINAL) or found[names.METHOD]),
        path=f"{path}?{query}" if query else str(path),
        status=int(view.status[row]) or None,
        ttfb_ns=int(view.parts.transfer[row] + view.parts.wait[row]) if is_answered else None,
        duration_ns=int(view.duration[row]),
        request_bytes=int(view.records["request_body"][row]),
        response_bytes=int(view.records["response_body"][row]),
        error=str(found[names.ERROR_TYPE]) if names.ERROR_TYPE in found else None,
        flags=flag_names(int(view.records["flags"][row])),
        client_port=int(view.flows.client_port[row]),
        attributes=found,
    )


def _end(view: HttpView, row: int, *, is_server: bool) -> str:
    """One side as text: `namespace/service` where known, else the address; with the port."""
    who = view.who.server if is_server else view.who.client
    port = int((view.flows.server_port if is_server else view.flows.client_port)[row])
    if who[row] >= 0:
        known = view.who.workloads[int(who[row])].attributes
        namespace, name = known.get(general.SERVICE_NAMESPACE), known.get(general.SERVICE_NAME)
        if name:
            return f"{namespace}/{name}:{port}" if namespace else f"{name}:{port}"
    text = address_text((view.server_address if is_server else view.client_address)[row].tobytes())
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
