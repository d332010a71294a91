"""A source with a record, a metric and spans of its own works through the same telemetry code, which knows nothing of HTTP."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import otel_ebpf_receiver
from otel_ebpf_receiver.kernel.assemble import KernelPart
from otel_ebpf_receiver.sources.source import Offsets, Rows, Signal, Source
from otel_ebpf_receiver.telemetry.columns import Group, Instrument, Integers, Kind, Linkage, Part, Points, Records, Seen, SpanColumns
from otel_ebpf_receiver.telemetry.keys import mix
from otel_ebpf_receiver.telemetry.routes import Routes
from otel_ebpf_receiver.telemetry.sampling import Candidates
from otel_ebpf_receiver.telemetry.workload import Flows, Identified, Workload
from tests.sources.line import Known, run
from tests.sources.records import START_NS

RECORD = np.dtype([("time_ns", "<u8"), ("tap", "<u4"), ("kind", "u1"), ("bytes", "<u4")])
COUNT = Instrument("dummy.packets", "{packet}", "Packets by kind.")
KINDS = ("syn", "datagram", "opaque")


class DummyView:
    """Counts what it is given, and makes a span of each."""

    def __init__(self, records: Records, offsets_ns: Offsets) -> None:
        n = len(records)
        self.records, self._zero = records, np.zeros(n, np.int64)
        self.start_unix_ns = self.end_unix_ns = records["time_ns"] + offsets_ns(records["time_ns"]).astype(np.uint64)
        nobody = np.zeros((n, 16), np.uint8)
        self.flows = Flows(
            records["tap"].astype(np.int64), np.zeros(n, np.uint8), nobody, nobody, self._zero, self._zero, self.start_unix_ns
        )
        none = np.zeros(n, bool)
        words = np.stack((records["time_ns"], records["bytes"].astype(np.uint64)))
        self.linkage = Linkage(words, none, nobody, np.zeros((n, 8), np.uint8), none, np.zeros(n, "S1"), none)

    def attach(self, who: Identified, name_of: Callable[[bytes], str], routes: Routes) -> None:
        self.who = who

    def _group(self) -> Group:
        return Group(mix(self.records["kind"]), lambda row: Part({"dummy.kind": KINDS[self.records["kind"][row]]}, "PACKET"))

    def points(self) -> Iterator[Points]:
        yield Points(COUNT, Kind.SERVER, np.arange(len(self.records)), np.ones(len(self.records)), self._group())

    def candidates(self, kind: Kind, slow_ns: int) -> Candidates:
        return Candidates(self.who.report_server, self._zero > 0, self._zero > 0)

    def spans(self, kind: Kind, rows: Rows) -> SpanColumns:
        return SpanColumns(
            kind,
            [Group(self._group().key[rows], lambda row: self._group().build(int(rows[row])))],
            [Integers("dummy.bytes", self.records["bytes"][rows])],
        )


class DummyDecoder:
    def seen(self, records: Records) -> Seen:
        raise AssertionError("a source without copies is not asked")

    def decode(self, records: Records, offsets_ns: Offsets) -> DummyView:
        return DummyView(records, offsets_ns)


def dummy(*kinds: Kind) -> Source:
    """The source, with spans of these kinds."""
    return Source("dummy", KernelPart("dummy", ("dummy/dummy.c",), ("on_syn",)), RECORD, [COUNT], kinds, DummyDecoder, has_copies=False)


def records() -> Records:
    """Thirty records, ten of each kind."""
    return np.array([(START_NS + number, 1 + number % 3, number % 3, number) for number in range(30)], RECORD)


def test_a_source_with_metrics_only() -> None:
    """Its counter is exported under its workload, by its own attribute; it makes no spans."""
    source = dummy()

    ran = run(records(), sources=[source], identity=Known(Workload({"service.name": "shop"})))

    assert source.signals == {Signal.METRICS}
    assert {point["attributes"]["dummy.kind"]: point["point"].as_int for point in ran.points} == {"syn": 10, "datagram": 10, "opaque": 10}
    assert {point["resource"]["service.name"] for point in ran.points} == {"shop"}
    assert not ran.spans


def test_a_source_with_spans() -> None:
    """Its spans have its own attributes, ids made from its own words, and exemplars name them."""
    ran = run(records(), sources=[dummy(Kind.SERVER)])

    assert [span["attributes"] for span in ran.spans] == [{"dummy.kind": KINDS[number % 3], "dummy.bytes": number} for number in range(30)]
    assert {span["name"] for span in ran.spans} == {"PACKET"}
    assert len({span["trace_id"] for span in ran.spans}) == 30
    spans = {span["span_id"] for span in ran.spans}
    assert {exemplar.span_id for point in ran.points for exemplar in point["point"].exemplars} <= spans


@pytest.mark.parametrize("folder", ["telemetry", "export"])
def test_telemetry_and_export_name_nothing_of_http(folder: str) -> None:
    """No string in the code below the sources is an HTTP attribute or metric."""
    root = Path(inspect.getfile(otel_ebpf_receiver)).parent / folder
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(("http.", "url.", "user_agent.")):
                found.append(f"{path.name}: {node.value}")
    assert not found
