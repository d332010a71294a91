"""Prometheus' text format: names, labels and numbers as OpenTelemetry's compatibility specification maps them. Pure.

https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/ · exposition format 0.0.4.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable

from otel_ebpf_receiver.status.counters import DURATION_BOUNDS_S, Attributes, Distribution, Instrument, Kind, Reading

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "min": "minutes",
    "h": "hours",
    "d": "days",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "%": "percent",
    "Cel": "celsius",
}
_TYPES = {Kind.COUNTER: "counter", Kind.HISTOGRAM: "histogram"}
INVALID = re.compile(r"[^a-zA-Z0-9_:]+")


def metric_name(name: str, unit: str, *, is_counter: bool, is_gauge: bool = False) -> str:
    """`otel_ebpf_receiver.ring.lost`, `{record}` → `otel_ebpf_receiver_ring_lost_total`; units become suffixes, annotations vanish."""
    base = INVALID.sub("_", name).strip("_")
    if base[:1].isdigit():
        base = f"_{base}"
    suffix = UNITS.get(unit, "ratio" if unit == "1" and is_gauge else "")
    if is_counter:
        base = base.removesuffix("_total")
    if suffix and not base.endswith(f"_{suffix}"):
        base = f"{base}_{suffix}"
    return f"{base}_total" if is_counter else base


def label_name(name: str) -> str:
    """`k8s.pod.name` → `k8s_pod_name`."""
    label = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{label}" if label[:1].isdigit() else label


def labels(pairs: Iterable[tuple[str, str]]) -> str:
    """`{a="1",b="2"}`; values of names that collide after mapping are joined by `;`, as the specification says."""
    joined: dict[str, list[str]] = {}
    for name, value in sorted(pairs):
        joined.setdefault(label_name(name), []).append(value)
    inner = ",".join(f'{name}="{escaped(";".join(values))}"' for name, values in joined.items())
    return f"{{{inner}}}" if inner else ""


def escaped(text: str) -> str:
    """A label value: backslash, quote and line end escaped."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def number(value: float) -> str:
    """A sample value; whole numbers without exponent."""
    if isinstance(value, int):
        return str(value)
    if math.isinf(value) or math.isnan(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def exposition(readings: Iterable[Reading]) -> str:
    """The text of readings that are ordered by name."""
    lines: list[str] = []
    for instrument, group in itertools.groupby(readings, key=lambda reading: reading.instrument):
        name = _name(instrument)
        help_text = instrument.description.replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"# HELP {name} {help_text}")
        lines.append(f"# TYPE {name} {_TYPES.get(instrument.kind, 'gauge')}")
        for reading in group:
            if isinstance(reading.value, Distribution):
                lines.extend(_buckets(name, reading.attributes, reading.value))
            else:
                lines.append(f"{name}{labels(reading.attributes)} {number(reading.value)}")
    return "".join(f"{line}\n" for line in lines)


def _buckets(name: str, attributes: Attributes, value: Distribution) -> Iterable[str]:
    for bound, count in zip((*DURATION_BOUNDS_S, math.inf), itertools.accumulate(value.counts), strict=True):
        yield f"{name}_bucket{labels((*attributes, ('le', number(bound))))} {count}"
    yield f"{name}_sum{labels(attributes)} {number(value.sum)}"
    yield f"{name}_count{labels(attributes)} {value.count}"


def _name(instrument: Instrument) -> str:
    return metric_name(instrument.name, instrument.unit, is_counter=instrument.kind is Kind.COUNTER, is_gauge=instrument.kind is Kind.GAUGE)
