"""The whole line keeps its books: every record, span and observation is accounted for, and one exchange is counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from otel_ebpf_receiver.pipeline import Counts, Line, TelemetryOptions
from otel_ebpf_receiver.sources.http import names, source
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.telemetry.columns import Bools, Records
from otel_ebpf_receiver.telemetry.red import MetricOptions, Temporality
from otel_ebpf_receiver.telemetry.sameness import Ranks
from otel_ebpf_receiver.telemetry.sampling import SamplingOptions
from otel_ebpf_receiver.telemetry.workload import Flows, Identified, NoIdentity, Workload
from tests.sources.line import NOW, Feed, Known, Ran, Sink, points, run
from tests.sources.records import MS, START_NS, UnixClock, make


def line(*feeds: Feed, **options: object) -> tuple[Line, Sink]:
    """A line over feeds, and the sink of its spans."""
    telemetry = TelemetryOptions(bytes(16), {"service.name": "unknown_service"}, **options)  # type: ignore[arg-type]
    made, sink = (
        Line(telemetry, [(source(HttpOptions()), feed) for feed in feeds], NoIdentity(), UnixClock(), start_unix_ns=START_NS),
        Sink(),
    )
    made.sinks = [sink]
    return made, sink


def test_an_exchange_on_stacked_devices_is_counted_once() -> None:
    """Copies at a bridge, two of its ports and an uplink behind NAT are one span and one observation; the rest is counted as copies."""
    same = {"request_seq": 1, "response_seq": 2}
    records = make({**same, "tap": 1}, {**same, "tap": 2}, {**same, "tap": 3}, {**same, "tap": 4, "client": "192.0.2.1", "client_port": 1})
    made, sink = line(Feed(records))
    made.ranks = Ranks({1: 5, 2: 5, 3: 7, 4: 9})

    made.run(now_ns=NOW)
    made.flush()

    assert [payload.items for payload in sink.payloads] == [1]
    assert (made.counts.received, made.counts.copies, made.counts.admitted, made.counts.observations) == (4, 3, 1, 1)


def test_without_identity_only_the_servers_side_is_reported() -> None:
    """One SERVER span, one server metric, under the host's Resource."""
    made, sink = line(Feed(make({})))
    made.run(now_ns=NOW)
    made.flush()

    assert [payload.items for payload in sink.payloads] == [1]
    assert [point.instrument.name for point in made.red.points()] == ["http.server.request.duration"]


def test_bursts_below_the_cap_are_whole() -> None:
    """Time in which nothing comes counts: 900 at once every second stay under a cap of 1,000, all of them, with another source beside."""
    bursts = [make(*({"request_seq": 10 * number + burst} for number in range(900))) for burst in range(4)]
    quiet = [bursts[0][:0]] * 9
    feeds = [Feed(*(batch for burst in bursts for batch in (burst, *quiet))), Feed(bursts[0][:0])]
    made, _ = line(*feeds, sampling=SamplingOptions("always_on", spans_per_second=1000))

    for tenth in range(40):
        made.run(now_ns=NOW + tenth * 100 * MS)
    made.flush()

    assert (made.counts.spans, made.counts.sampled_out, made.probability) == (3600, 0, 1.0)


def test_the_cap_thins_all_records_of_a_drain_alike() -> None:
    """Ten times what the cap allows, in more records than are handled at once: each part keeps its tenth."""
    made, _ = line(
        Feed(make(*({"request_seq": number} for number in range(10_000)))), sampling=SamplingOptions("always_on", spans_per_second=1000)
    )

    made.run(now_ns=NOW)

    assert 850 < made.counts.spans < 1150
    assert made.probability == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("name", ["always_on", "always_off", "traceidratio", "consistent_probability"])
def test_the_books_balance(name: str) -> None:
    """Every span that might have been is sent, sampled out, silenced or ignored; metrics count all exchanges whatever the sampler says."""
    rows = [{"request_seq": number, "agent": "probe" if number % 5 == 0 else "x", "status": 200 + number % 400} for number in range(1000)]

    ran = run(make(*rows), options=HttpOptions(ignored_agents=("probe",)), sampling=SamplingOptions(name, 0.5, spans_per_second=100))  # type: ignore[arg-type]

    counts = ran.line.counts
    assert counts.spans == len(ran.spans)
    if name != "always_off":
        assert counts.spans + counts.sampled_out + counts.silenced + counts.ignored == 2000
        assert 0 < counts.spans <= 200
    assert sum(point["point"].count for point in ran.points) == 2000


def test_exemplars_are_spans_that_are_sent() -> None:
    """Each exemplar's ids are those of a span of the same kind in the same run."""
    rows = [{"request_seq": number, "response_end_ns": START_NS + (8 + number) * MS} for number in range(300)]

    ran = run(make(*rows), sampling=SamplingOptions("traceidratio", 0.3, spans_per_second=0), identity=Known())

    sent = {(span["trace_id"], span["span_id"]) for span in ran.spans}
    exemplars = [(exemplar.trace_id, exemplar.span_id) for point in ran.points for exemplar in point["point"].exemplars]
    assert exemplars
    assert set(exemplars) <= sent


def test_young_records_wait_and_leave_at_the_end() -> None:
    """With several taps a record waits for better copies, shows as waiting, and leaves with the last round."""
    made, sink = line(Feed(make({})))
    made.ranks = Ranks({7: 1, 8: 2})

    made.run(now_ns=START_NS + 8 * MS)
    assert made.waiting == 1
    made.run(now_ns=START_NS + 9 * MS, is_last=True)
    made.flush()

    assert made.waiting == 0
    assert sum(payload.items for payload in sink.payloads) == 1


def test_signals_can_be_off() -> None:
    """Without spans nothing is encoded, without metrics nothing is added up."""
    no_spans, sink = line(Feed(make({})), makes_spans=False)
    no_spans.run(now_ns=NOW)
    no_spans.flush()
    no_metrics, _ = line(Feed(make({})), makes_metrics=False)
    no_metrics.run(now_ns=NOW)

    assert not sink.payloads
    assert no_spans.counts.observations == 1
    assert (no_metrics.counts.spans, len(no_metrics.red)) == (1, 0)


def test_a_batch_larger_than_a_slice_is_whole() -> None:
    """Ten thousand records in one batch give ten thousand spans, and equal ones as cut into many batches."""
    records = np.repeat(make({}), 10_000)
    records["request_seq"] = np.arange(10_000)

    whole = run(records, identity=Known(report_client=False))
    parts = run(*np.array_split(records, 37), identity=Known(report_client=False))

    assert len(whole.spans) == 10_000
    assert sorted(span["span_id"] for span in whole.spans) == sorted(span["span_id"] for span in parts.spans)


def varied(count: int) -> Records:
    """Exchanges that differ in everything that a span tells, some with a remote parent and a trace state."""
    rows: list[dict[str, object]] = []
    for number in range(count):
        row: dict[str, object] = {
            "request_seq": number,
            "target": f"/{'a' * (number % 40)}?q={number}",
            "status": (200, 404, 503)[number % 3],
            "method": ("GET", "POST", "BREW")[number % 3],
            "host": f"host{number % 4}:81",
            "agent": f"agent{number % 5}",
        }
        if number % 2:
            row |= {"trace_id": bytes(15) + bytes((number % 250 + 1,)), "parent_id": bytes(7) + b"\1", "trace_flags": 1}
            row["tracestate"] = ("", "ot=th:8;rv:c0000000000000", "other=1")[number % 3]
        rows.append(row)
    return make(*rows)


@pytest.mark.parametrize("sampler", ["parentbased_always_on", "consistent_probability"])
def test_spans_that_waited_are_those_that_did_not(sampler: str) -> None:
    """Chosen in many small batches and encoded together, every span is what it is when its batch is large enough to be encoded at once."""
    records = varied(6000)
    sampling = SamplingOptions(sampler, 0.9, spans_per_second=0)  # type: ignore[arg-type]
    http = HttpOptions(query=True)
    server, client = Workload({"service.name": "s"}), Workload({"service.name": "c"})

    whole = run(records, sampling=sampling, identity=Known(server, client), options=http)
    parts = run(*np.array_split(records, 50), sampling=sampling, identity=Known(server, client), options=http)

    def ordered(ran: Ran) -> list[dict[str, object]]:
        return sorted(ran.spans, key=lambda span: (span["span_id"], span["kind"]))

    assert len(whole.spans) == whole.line.counts.spans > 8000
    assert ordered(parts) == ordered(whole)


def test_spans_that_wait_keep_the_names_of_their_time() -> None:
    """When identity has a new table of workloads, what was chosen under the old one is encoded with the old one's names."""

    class Changing(Known):
        def identify(self, flows: Flows, *, has_waited: bool = False, arrived: Bools | None = None, is_open: bool = False) -> Identified:
            self.workloads = (Workload({"service.name": f"s{int(flows.server_port[0])}"}),)
            return super().identify(flows)

    first, second = make({"server_port": 1, "request_seq": 1}), make({"server_port": 2, "request_seq": 2})
    ran = run(first, second, identity=Changing(Workload({}), report_client=False))

    assert sorted(span["resource"]["service.name"] for span in ran.spans) == ["s1", "s2"]


def test_rows_that_wait_are_told_once_and_the_books_balance() -> None:
    """Identity wants one of three rows to wait: two go on at once, the third when its time is over; what an agent of this kind sent is nobody's."""

    class Slow(Known):
        def identify(self, flows: Flows, *, has_waited: bool = False, arrived: Bools | None = None, is_open: bool = False) -> Identified:
            waits = (flows.client_port == 2) & ~np.array(has_waited)
            return replace(super().identify(flows), waits=waits)

    rows = [make({"client_port": port, "request_seq": port}) for port in (1, 2, 3)]
    own = make({"client_port": 4, "request_seq": 4, "agent": "otel_ebpf_receiver/1.0"})
    feed, sink = Feed(np.concatenate([*rows, own])), Sink()
    options = TelemetryOptions(bytes(16), {"service.name": "host"}, sampling=SamplingOptions("always_on", spans_per_second=0))
    made = Line(options, [(source(HttpOptions()), feed)], Slow(Workload({})), UnixClock(), start_unix_ns=START_NS)
    made.sinks = [sink]

    made.run(now_ns=NOW)
    made.run(now_ns=NOW + 1000 * MS)
    first = (made.counts.admitted, made.waiting)
    made.run(now_ns=NOW + 2001 * MS)

    counts = made.counts
    assert first == (2, 1)
    assert (counts.received, counts.copies, counts.exports, counts.admitted, made.waiting) == (4, 0, 1, 3, 0)


class Begun:
    """A line that is asked for open requests, and its points of them."""

    def __init__(self, temporality: Temporality = "cumulative", *, is_on: bool = True, **who: bool) -> None:
        self.records = make()
        options = TelemetryOptions(bytes(16), {"service.name": "host"}, metrics=MetricOptions(temporality=temporality))
        known = Known(Workload({"service.name": "shop"}), Workload({"service.name": "caller"}), None, **who)
        made = source(HttpOptions(active=is_on))
        self.line = Line(options, [(made, Feed(make()))], known, UnixClock(), start_unix_ns=START_NS)
        self.line.begun = lambda source: self.records
        self.now = NOW

    def collect(self) -> list[dict[str, Any]]:
        """Of the next interval, which is accepted."""
        self.now += 1000 * MS
        collection = self.line.collect(self.now)[0]
        collection.commit()
        return [point for payload in collection.payloads for point in points(payload)]


def levels(found: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str], int]:
    """Whose, which way, what for: how many."""
    return {
        (one["resource"]["service.name"], one["metric"].split(".")[1], one["attributes"][names.METHOD]): one["point"].as_int
        for one in found
    }


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_requests_under_way_are_a_level(temporality: Temporality) -> None:
    """As many as there are at the moment, 0 when they have ended, whatever temporality others have; the attributes are those known before an answer."""
    begun = Begun(temporality)
    begun.records = make(*({"status": 0, "request_seq": number, "method": "PUT" if number == 4 else "GET"} for number in range(5)))

    first = begun.collect()
    second = begun.collect()
    begun.records = make()
    third = begun.collect()

    both = {("shop", "server", "GET"): 4, ("shop", "server", "PUT"): 1, ("caller", "client", "GET"): 4, ("caller", "client", "PUT"): 1}
    assert levels(first) == levels(second) == both
    assert levels(third) == dict.fromkeys(both, 0)
    assert {one["metric"] for one in first} == {"http.server.active_requests", "http.client.active_requests"}
    assert {one["unit"] for one in first} == {"{request}"}
    attributes = {one["metric"]: one["attributes"].keys() for one in first}
    assert attributes["http.server.active_requests"] == {names.METHOD, names.URL_SCHEME}
    assert attributes["http.client.active_requests"] == {names.METHOD, names.SERVER_ADDRESS, names.SERVER_PORT}
    # A level has no difference: it began when its series did.
    assert {one["point"].start_time_unix_nano for one in (*first, *second, *third)} == {START_NS}
    assert all(not one["sum"].is_monotonic and one["sum"].aggregation_temporality == 2 for one in first)


def test_requests_under_way_are_nobodys_twice() -> None:
    """Of copies on stacked devices one counts, an agent's own export is none, and neither is told of where metrics are left to an SDK; no record is counted."""
    begun, silenced, off = Begun(), Begun(uncounted=True), Begun(is_on=False)
    own = {"status": 0, "request_seq": 9, "agent": "otel_ebpf_receiver/1.0", "tap": 7}
    for one in (begun, silenced, off):
        one.line.ranks = Ranks({7: 1, 8: 2})
        one.records = make(*({"status": 0, "request_seq": 1, "request_ack": 1, "tap": tap} for tap in (7, 8)), own)

    assert levels(begun.collect()) == {("shop", "server", "GET"): 1, ("caller", "client", "GET"): 1}
    begun.records = make(own)
    assert levels(begun.collect()) == {("shop", "server", "GET"): 0, ("caller", "client", "GET"): 0}
    assert silenced.collect() == off.collect() == []
    assert begun.line.counts == Counts()
