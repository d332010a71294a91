"""Span columns to OTLP bytes, a whole batch at a time; no Python object holds a span.

One matrix row per span holds all that has a fixed width and, behind it, the text that differs; groups come from a cache. Rows that lack a
number, a text or a parent are laid out apart. It must not know any attribute's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otel_ebpf_receiver.telemetry.columns import I64, U8, U64, Bools, Group, Integers, Kind, Part, Prefix, SpanColumns, Text
from otel_ebpf_receiver.telemetry.keys import distinct, mix
from otel_ebpf_receiver.telemetry.wire import Pieces, Rows, Texts, attribute_fields, strings, varint_width

_LENGTH_WIDTH = 3
"""Bytes of a span's length: 2 MiB, far above what the longest texts add up to."""
_ATTRIBUTES = Span.DESCRIPTOR.fields_by_name["attributes"].number
_FLAGS_ROOT, _FLAGS_CHILD = 0x100, 0x300
"""It is known whether the parent is remote; it is (OTLP SpanFlags)."""


@dataclass(frozen=True, slots=True)
class Links:
    """Where and when each span is: trace id (n x 16), span and parent id (n x 8), whether there is a parent, Unix times."""

    trace: U8
    span: U8
    parent: U8
    has_parent: Bools
    start_unix_ns: U64
    end_unix_ns: U64

    @classmethod
    def joined_up(cls, many: Sequence[Links]) -> Links:
        """Several in a row."""
        return cls(*(np.concatenate([getattr(one, name) for one in many]) for name in cls.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Some spans: the Resource of each, its pieces, in k columns, joined an entry of `ScopeSpans.spans`, and its length in bytes."""

    resource: I64
    pieces: Sequence[list[bytes]]
    sizes: I64


class SpanEncoder:
    """Encodes columns, with a cache of what many spans share."""

    def __init__(self) -> None:
        self._pieces = Pieces()
        self._prefixes = Pieces()

    def encode(self, columns: SpanColumns, links: Links, resource: I64) -> Encoded:
        """All spans, ordered by `resource`."""
        # hot: benchmarks/pipeline.py. Put in order now, what is joined lies in a row in memory.
        rows = _order(resource)
        behind = np.zeros(len(rows), np.int64)
        pieces: list[list[bytes]] = []
        for text in columns.texts:
            if text.prefix is not None:
                far, lengths = self._far(text, text.prefix, rows)
                pieces += far
                behind += lengths
        for group in columns.groups:
            shared, lengths = self._pieces.take(mix(group.key.take(rows), int(columns.kind)), _encode_part(columns.kind, group, rows))
            pieces.append(shared)
            behind += lengths
        heads, sizes = _all_heads(columns, links, behind, rows)
        return Encoded(resource.take(rows), [heads, *pieces], sizes)

    def _far(self, text: Text, prefix: Prefix, rows: npt.NDArray[np.intp]) -> tuple[list[list[bytes]], I64]:
        """A text behind a cached prefix: its header, the prefix, itself."""
        begin, begin_lengths = self._prefixes.take(prefix.key.take(rows), lambda row: prefix.build(int(rows[row])))
        header, whole = Rows(len(rows)), begin_lengths + text.lengths.take(rows)
        _text_header(header, text, whole)
        pieces, lengths = [header.strings(), begin, strings(text.matrix.take(rows, axis=0))], header.width + whole
        if text.present is not None:
            present = text.present.take(rows)
            pieces = [[part if there else b"" for part, there in zip(piece, present.tolist(), strict=True)] for piece in pieces]
            lengths = np.where(present, lengths, 0)
        return pieces, lengths


def _encode_part(kind: Kind, group: Group, rows: npt.NDArray[np.intp]) -> Callable[[int], bytes]:
    def build(row: int) -> bytes:
        return encode_part(group.build(int(rows[row])), kind)

    return build


def encode_part(part: Part, kind: Kind) -> bytes:
    """The fields of a span that a group sets; kind and status go with the name."""
    span = Span(trace_state=part.trace_state)
    if part.name:
        span.name, span.kind = part.name, int(kind)  # type: ignore[assignment]
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR) if part.is_error else Status())
    return span.SerializeToString() + attribute_fields(_ATTRIBUTES, part.attributes)


def _order(resource: I64) -> npt.NDArray[np.intp]:
    """Rows by their Resource. numpy sorts numbers of 16 bits by their digits, several times as fast as larger ones."""
    return np.argsort(resource.astype(np.uint16) if int(resource.max(initial=0)) < 1 << 16 else resource, kind="stable")


def _layout(columns: SpanColumns, links: Links) -> npt.NDArray[np.uint32]:
    """A number for each row, equal for rows that have the same fields."""
    presences = [links.has_parent, *(column.present for column in columns.integers), *(text.present for text in _near(columns))]
    optional = [present for present in presences if present is not None]
    layout = np.zeros(len(links.has_parent), np.uint32)
    for bit, present in enumerate(optional):
        layout |= present.astype(np.uint32) << np.uint32(bit)
    return layout


def _near(columns: SpanColumns) -> list[Text]:
    return [text for text in columns.texts if text.prefix is None]


def _all_heads(columns: SpanColumns, links: Links, behind: I64, rows: npt.NDArray[np.intp]) -> tuple[list[bytes], I64]:
    """What no other span shares of each of `rows`, and the span's length; `behind`: bytes of its rest."""
    layout = _layout(columns, links).take(rows)
    if not len(rows) or (layout == layout[0]).all():
        return _heads(columns, links, behind, rows)
    heads, sizes = np.empty(len(rows), object), np.empty(len(rows), np.int64)
    for which in distinct(layout):
        at = np.flatnonzero(layout == which)
        heads[at], sizes[at] = _heads(columns, links, behind[at], rows[at])
    return heads.tolist(), sizes


def _heads(columns: SpanColumns, links: Links, behind: I64, rows: npt.NDArray[np.intp]) -> tuple[list[bytes], I64]:
    # hot: benchmarks/pipeline.py
    out = Rows(len(rows))
    length = behind.copy()
    out.constant(b"\x12")
    out.varint(length, _LENGTH_WIDTH)
    start = out.width
    _link(out, links, rows)
    for integer in columns.integers:
        if _is_there(integer.present, rows):
            _integer(out, integer, rows)
    tail = None
    for text in _near(columns):
        if _is_there(text.present, rows):
            lengths = text.lengths.take(rows)
            _text_header(out, text, lengths)
            tail = Texts(text.matrix.take(rows, axis=0)[:, : int(lengths.max(initial=0))], lengths)
            length += lengths
    sizes = length + out.width
    length += out.width - start
    return out.strings(tail), sizes


def _is_there(present: Bools | None, rows: npt.NDArray[np.intp]) -> bool:
    return present is None or bool(present[rows[:1]].all())


def _link(out: Rows, links: Links, rows: npt.NDArray[np.intp]) -> None:
    out.constant(b"\x0a\x10")
    out.raw(links.trace.take(rows, axis=0))
    out.constant(b"\x12\x08")
    out.raw(links.span.take(rows, axis=0))
    is_child = _is_there(links.has_parent, rows)
    if is_child:
        out.constant(b"\x22\x08")
        out.raw(links.parent.take(rows, axis=0))
    out.constant(b"\x85\x01" + (_FLAGS_CHILD if is_child else _FLAGS_ROOT).to_bytes(4, "little"))
    out.fixed64(0x39, links.start_unix_ns.take(rows))
    out.fixed64(0x41, links.end_unix_ns.take(rows))


def _integer(out: Rows, integer: Integers, rows: npt.NDArray[np.intp]) -> None:
    values = integer.values.take(rows)
    width, name = varint_width(values), integer.name.encode()
    out.constant(bytes((0x4A, len(name) + width + 5, 0x0A, len(name))) + name + bytes((0x12, width + 1, 0x18)))
    out.varint(values, width)


def _text_header(out: Rows, text: Text, lengths: I64) -> None:
    """Everything of a `KeyValue` in front of the text's bytes."""
    name = text.name.encode()
    # The three lengths share one width, which the longest needs.
    width = varint_width(lengths + len(name) + 16)
    out.constant(b"\x4a")
    out.varint(lengths + (len(name) + 2 + 1 + width + 1 + width), width)
    out.constant(bytes((0x0A, len(name))) + name + b"\x12")
    out.varint(lengths + 1 + width, width)
    out.constant(b"\x0a")
    out.varint(lengths, width)
