"""Halves an encoded request by spans or data points. Only for the rare oversize batch: it decodes, so it has no place on the usual path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.queue import Payload

# A request is a tree of repeated fields down to the items; each level names the field that holds the next. Typed as Any because
# one walk serves both trees, and a metric's field depends on its kind.
LEVELS: dict[Signal, tuple[str, ...]] = {
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics", "data_points"),
}
REQUESTS: dict[Signal, type[ExportTraceServiceRequest] | type[ExportMetricsServiceRequest]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}


def halve(signal: Signal, payload: Payload) -> list[Payload]:
    """Two payloads with the items of one, order kept; the payload alone when it holds a single item. Items always add up."""
    request = REQUESTS[signal].FromString(payload.body)
    levels = LEVELS[signal]
    total = _count(request, levels)
    if total < 2:
        return [payload]
    first, second = REQUESTS[signal](), REQUESTS[signal]()
    _deal(request, levels, [(first, total // 2), (second, total - total // 2)])
    # What the payload says of itself is what the books hold: a difference to what it contains stays within the second part.
    items = min(payload.items, total // 2)
    parts = ((first, items), (second, payload.items - items))
    return [Payload(part.SerializeToString(), count, payload.receipt) for part, count in parts]


def cut(signal: Signal, payload: Payload, max_items: int) -> list[Payload]:
    """`payload` in parts of at most `max_items` items, order kept; usually itself."""
    if payload.items <= max_items:
        return [payload]
    parts = halve(signal, payload)
    if len(parts) < 2:
        return parts
    return [piece for part in parts for piece in cut(signal, part, max_items)]


def splitter(signal: Signal) -> Callable[[Payload], Sequence[Payload]]:
    """`halve` for one signal, as a sender wants it."""
    return lambda payload: halve(signal, payload)


def _children(node: Any, level: str) -> Any:
    if level != "data_points":
        return getattr(node, level)
    kind = node.WhichOneof("data")
    return getattr(node, kind).data_points if kind else ()


def _count(node: Any, levels: Sequence[str]) -> int:
    children = _children(node, levels[0])
    return len(children) if len(levels) == 1 else sum(_count(child, levels[1:]) for child in children)


def _deal(node: Any, levels: Sequence[str], shares: Iterable[tuple[Any, int]]) -> None:
    """Moves the items below `node` into the `shares`: (empty twin of `node`, number of items), in order."""
    items = iter(_walk(node, levels))
    for target, number in shares:
        path: list[tuple[Any, Any]] = []
        for _, branch in zip(range(number), items, strict=False):
            _attach(target, levels, branch, path)


def _walk(node: Any, levels: Sequence[str], above: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    """Every item with its ancestors: (child of the root, …, item)."""
    for child in _children(node, levels[0]):
        branch = (*above, child)
        if len(levels) == 1:
            yield branch
        else:
            yield from _walk(child, levels[1:], branch)


def _attach(target: Any, levels: Sequence[str], branch: tuple[Any, ...], path: list[tuple[Any, Any]]) -> None:
    """Appends the item of `branch`; an ancestor that is not yet the last of its level in `target` is copied without its children.

    `path` remembers (original, copy) of each level between calls.
    """
    parent = target
    for depth, original in enumerate(branch):
        if depth < len(path) and path[depth][0] is original:
            parent = path[depth][1]
            continue
        del path[depth:]
        copy = _children(parent, levels[depth]).add()
        copy.CopyFrom(original)
        if depth + 1 < len(branch):
            del _children(copy, levels[depth + 1])[:]
            path.append((original, copy))
        parent = copy
