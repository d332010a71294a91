"""Series as Prometheus text 0.0.4, or as OpenMetrics 1.0 with units, exemplars and the info type. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from otel_ebpf_receiver.export.prometheus.series import Family, Sampled, Series
from otel_ebpf_receiver.status.exposition import CONTENT_TYPE, labels, number

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def render(many: Iterable[Series], *, openmetrics: bool) -> tuple[str, str]:
    """Content type and text of series whose families stand together."""
    lines: list[str] = []
    for family, group in itertools.groupby(many, key=lambda series: series.family):
        lines.extend(_head(family, openmetrics=openmetrics))
        for series in group:
            lines.extend(_samples(series, openmetrics=openmetrics))
    if openmetrics:
        lines.append("# EOF")
    return OPENMETRICS if openmetrics else CONTENT_TYPE, "".join(f"{line}\n" for line in lines)


def _head(family: Family, *, openmetrics: bool) -> Iterator[str]:
    help_text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    if openmetrics:
        name, kind = family.name, family.kind
    else:
        # The older format names a counter by its sample and knows no info.
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.kind, "")
        kind = "gauge" if family.kind == "info" else family.kind
    yield f"# TYPE {name} {kind}"
    if openmetrics and family.unit:
        yield f"# UNIT {name} {family.unit}"
    yield f"# HELP {name} {help_text}"


def _samples(series: Series, *, openmetrics: bool) -> Iterator[str]:
    name = series.family.name
    if series.family.kind != "histogram":
        suffix = {"counter": "_total", "info": "_info"}.get(series.family.kind, "")
        yield f"{name}{suffix}{labels(series.labels)} {number(series.value)}"
        return
    total = 0
    below = float("-inf")
    for bound, count in series.buckets:
        total += count
        exemplar = _exemplar(series.exemplars, below, bound) if openmetrics else ""
        below = bound
        yield f"{name}_bucket{labels((*series.labels, ('le', _bound(bound))))} {total}{exemplar}"
    yield f"{name}_sum{labels(series.labels)} {number(series.value)}"
    yield f"{name}_count{labels(series.labels)} {series.count}"


def _bound(bound: float) -> str:
    # Both formats write bounds as floats, so that 1 and 1.0 are one bucket whoever scrapes.
    return "+Inf" if bound == float("inf") else repr(float(bound))


def _exemplar(exemplars: tuple[Sampled, ...], below: float, bound: float) -> str:
    """The latest exemplar of a bucket, (below, bound]."""
    inside = [each for each in exemplars if below < each.value <= bound and each.trace_id]
    if not inside:
        return ""
    latest = max(inside, key=lambda each: each.seconds)
    ids = labels((("trace_id", latest.trace_id), ("span_id", latest.span_id)))
    return f" # {ids} {number(latest.value)} {latest.seconds:.3f}"
