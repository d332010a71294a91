"""The straight line: drain, decode, once, identify, sample, encode, queue, observe; per batch, on one thread.

`Line.run` is the function to read. It knows no source, no exporter and no clock: records come from transports, times from the caller, finished
requests go to sinks. Nothing here runs once per record.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.export.queue import Payload
from otel_ebpf_receiver.sources.pool import ENOUGH, Chosen, Pool, known
from otel_ebpf_receiver.sources.source import Decoder, Source, SpanView, View
from otel_ebpf_receiver.telemetry import ids
from otel_ebpf_receiver.telemetry.columns import (
    I64,
    U64,
    AttributeValue,
    Bools,
    Group,
    Kind,
    Linkage,
    Points,
    Records,
    SpanColumns,
    of_rows,
    picked,
)
from otel_ebpf_receiver.telemetry.exemplars import Sampled as Exemplified
from otel_ebpf_receiver.telemetry.names import SERVICE_NAME
from otel_ebpf_receiver.telemetry.outbox import Outbox
from otel_ebpf_receiver.telemetry.patience import Asking, Patience, PatienceOptions
from otel_ebpf_receiver.telemetry.red import Collection, MetricOptions, Reader, Red
from otel_ebpf_receiver.telemetry.resources import Resources
from otel_ebpf_receiver.telemetry.routes import RouteOptions, Routes
from otel_ebpf_receiver.telemetry.sameness import Admitted, Once, OnceOptions, Ranks
from otel_ebpf_receiver.telemetry.sampling import KEPT_REASONS, Candidates, Sampled, Sampling, SamplingOptions, States, reasons
from otel_ebpf_receiver.telemetry.spans import Links, SpanEncoder
from otel_ebpf_receiver.telemetry.workload import Identified, Identity, unmasked

SLICE = 8192
"""Records handled at once: enough for numpy, few enough that no step holds the interpreter for more than milliseconds."""


class Transport(Protocol):
    """Where a source's records come from (`kernel/ring.py`, `kernel/parked.py`)."""

    def drain(self) -> Records:
        """Records that arrived since the last call, as a copy; may be empty."""


class Clock(Protocol):
    """Makes the records' times Unix times (`kernel/clock.py`)."""

    def offsets_ns(self, times_ns: U64 | I64) -> I64:
        """What to add to times near each of these."""


class Sink(Protocol):
    """What takes finished requests; never blocks (`export/queue.py`)."""

    def offer(self, payload: Payload) -> None: ...


class Watcher(Protocol):
    """What wants to see every exchange that was admitted, for people: lines, the live page, JSON."""

    def watch(self, source: Source, view: View) -> None: ...


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """Everything that the line can be told. `id_key`: to begin with, see `Line`.

    `host`: the Resource of traffic without a workload; `added`: lent to every Resource.
    """

    id_key: bytes
    host: Mapping[str, AttributeValue]
    added: Mapping[str, AttributeValue] = field(default_factory=dict)
    version: str = "0"
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    routes: RouteOptions = field(default_factory=RouteOptions)
    metrics: MetricOptions = field(default_factory=MetricOptions)
    once: OnceOptions = field(default_factory=OnceOptions)
    patience: PatienceOptions = field(default_factory=PatienceOptions)
    makes_spans: bool = True
    makes_metrics: bool = True
    spans_at_once: int = sys.maxsize
    """So many spans leave as soon as they wait, and no request holds more."""


@dataclass(slots=True)
class Counts:
    """What became of records and spans: received = copies + exports + admitted + waiting; of what is reported, spans + sampled_out + silenced + ignored."""

    received: int = 0
    copies: int = 0
    exports: int = 0
    """What agents of this kind sent: nobody's exchanges."""
    admitted: int = 0
    spans: int = 0
    sampled_out: int = 0
    silenced: int = 0
    """Left out because of who was there: opted out, or instrumented already."""
    ignored: int = 0
    """Left out because of what asked: health probes and the like."""
    observations: int = 0


@dataclass(frozen=True, slots=True)
class _Feed:
    source: Source
    transport: Transport
    decoder: Decoder
    once: Once
    patience: Patience
    pools: Mapping[Kind, Pool]


def _feed(source: Source, transport: Transport, options: TelemetryOptions) -> _Feed:
    pools = {kind: Pool() for kind in source.kinds}
    return _Feed(source, transport, source.decoder(), Once(options.once), Patience(options.patience), pools)


@dataclass(frozen=True, slots=True)
class _Taken:
    """The spans of one kind that a batch gives: which rows, and where each hangs."""

    kind: Kind
    sampled: Sampled
    links: Links
    states: States


class Line:
    """Carries the records of all sources to encoded telemetry."""

    def __init__(
        self, options: TelemetryOptions, feeds: Sequence[tuple[Source, Transport]], identity: Identity, clock: Clock, *, start_unix_ns: int
    ) -> None:
        self._options, self.identity, self._clock = options, identity, clock
        self._feeds = [_feed(source, transport, options) for source, transport in feeds]
        self._resources = Resources(dict(options.host), dict(options.added), options.version)
        self._routes = Routes(options.routes, str(options.host.get(SERVICE_NAME, "")))
        self._sampling = Sampling(options.sampling)
        self._encoder = SpanEncoder()
        self._outbox = Outbox(self._resources, max_items=options.spans_at_once)
        self.red = Red(options.metrics, self._resources, start_unix_ns=start_unix_ns)
        self.ranks = Ranks({})
        """Preference of taps; whoever attaches taps replaces it whole."""
        self.sees_arrivals = False
        """Whatever reaches this node is seen coming in at some tap; whoever chooses taps says so."""
        self.id_key = options.id_key
        """Makes the ids; replaced when the cluster is known from whose uid it comes."""
        self.relief: Callable[[int], float] = lambda taken: 1.0
        """The largest share of spans after a drain of so many records: metrics must not lose anything while there are spans to leave out."""
        self.begun: Callable[[Source], Records | None] = lambda source: None
        """Records of what has begun and not ended, by source; whoever can read them says so."""
        self.sinks: Sequence[Sink] = ()
        """Each gets every request of spans."""
        self.watchers: Sequence[Watcher] = ()
        self.counts = Counts()
        self._last_ns: int | None = None

    def run(self, *, now_ns: int, is_last: bool = False) -> int:
        """One round over all sources; the number of records taken. `now_ns` is of the records' clock; `is_last`: nothing waits any more."""
        elapsed_s = (now_ns - self._last_ns) / 1e9 if self._last_ns is not None else 0.0
        self._last_ns = now_ns
        self._sampling.refill(elapsed_s)
        taken, parts = 0, list[tuple[_Feed, Asking]]()
        for feed in self._feeds:
            drained = feed.transport.drain()
            taken += len(drained)
            admitted = self._once(feed, drained, now_ns, is_last)
            asking = [*feed.patience.release(now_ns, self.identity.news, is_last=is_last), *_sliced(admitted, is_last=is_last)]
            parts += [(feed, part) for part in asking]
        self._sampling.relief = self.relief(taken)
        left = sum(len(part.admitted.records) for _, part in parts)
        for feed, part in parts:
            size = len(part.admitted.records)
            share, left = size / max(left, 1), left - size
            named = self._identify(feed, part, now_ns)
            if named is None:
                continue
            records, view, who = named
            spans = self._sample(feed.source, view, who, share)
            # Spans first: where all rows become spans, all targets are taken apart at once.
            self._encode(feed, records, view, who, spans)
            self._observe(view, who, spans, self._unix_ns(now_ns))
            for watcher in self.watchers:
                watcher.watch(feed.source, view)
        return taken

    def flush(self) -> None:
        """Sends the spans that wait."""
        for feed in self._feeds:
            for kind in feed.source.kinds:
                self._empty(feed, kind)
        self._send(self._outbox.flush())

    def collect(self, unix_ns: int, readers: Sequence[Reader] | None = None) -> list[Collection]:
        """One interval of metrics for each reader (None: all). Offer its payloads, and tell it by `commit` which were accepted: nothing is lost."""
        self._count_active(unix_ns)
        collections = self.red.collect_for(self.red.readers if readers is None else readers, unix_ns)
        self._resources.retain(self.red.used | self._outbox.used)
        return collections

    @property
    def waiting(self) -> int:
        """Records that wait for a better copy, or for somebody to be known."""
        return sum(feed.once.held + feed.patience.held for feed in self._feeds)

    @property
    def patience(self) -> Mapping[str, int]:
        """Of records whose workload was not known when they came: those that wait, those that did, and those that found no room."""
        return {name: sum(getattr(feed.patience, name) for feed in self._feeds) for name in ("held", "waited", "hurried")}

    @property
    def probability(self) -> float:
        """The share of spans that cap and relief let through of the last batch."""
        return self._sampling.probability

    def _unix_ns(self, now_ns: int) -> int:
        now = np.array([now_ns], np.int64)
        return now_ns + int(self._clock.offsets_ns(now)[0])

    def _once(self, feed: _Feed, drained: Records, now_ns: int, is_last: bool) -> Admitted:
        before, admitted = feed.once.copies, Admitted(drained)
        if feed.source.has_copies:
            admitted = feed.once.admit(drained, feed.decoder.seen, self.ranks, now_ns=now_ns, is_last=is_last)
        self.counts.received += len(drained)
        self.counts.copies += feed.once.copies - before
        return admitted if self.sees_arrivals else Admitted(admitted.records)

    def _identify(self, feed: _Feed, part: Asking, now_ns: int) -> tuple[Records, View, Identified] | None:
        """What can be told now, if anything; the rest waits, if there is room."""
        records, arrived = part.admitted.records, part.admitted.arrived
        view = feed.decoder.decode(records, self._clock.offsets_ns)
        exports = feed.source.exports(view)
        if exports and exports.own.any():
            self.counts.exports += int(np.count_nonzero(exports.own))
            rest = ~exports.own
            other = Admitted(picked(records, rest), None if arrived is None else arrived[rest])
            return self._identify(feed, replace(part, admitted=other), now_ns) if rest.any() else None
        who = self.identity.identify(view.flows, has_waited=part.has_waited, arrived=arrived)
        if who.masked is not None and who.masked.any():
            who = unmasked(who, feed.decoder.seen(records).key)
        if exports:
            self.identity.saw_exports(who, exports.spans, exports.metrics)
        if who.waits is not None and who.waits.any() and feed.patience.has_room(who.waits):
            feed.patience.hold(part, who.waits, now_ns)
            ready = ~who.waits
            if not ready.any():
                return None
            records, who = picked(records, ready), who.of(ready)
            view = feed.decoder.decode(records, self._clock.offsets_ns)
        self.counts.admitted += len(records)
        view.attach(who, self.identity.name, self._routes)
        return records, view, who

    def _sample(self, source: Source, view: View, who: Identified, share: float) -> list[_Taken]:
        """`share`: of what is left of the cap's budget, for these rows."""
        if not (source.kinds and self._options.makes_spans) or self._sampling.is_off:
            return []
        spans = cast(SpanView, view)
        linkage = spans.linkage
        states, made = States(linkage), ids.Derived(self.id_key, linkage)
        candidates = [self._candidates(spans, kind, who) for kind in source.kinds]
        samples = self._sampling.sample(linkage, states, made, candidates, share)
        self.counts.sampled_out += sum(int(np.count_nonzero(kind.wanted)) for kind in candidates) - sum(len(one.rows) for one in samples)
        joined = _joined(who, dict(zip(source.kinds, samples, strict=True)))
        out = []
        for kind, sampled in zip(source.kinds, samples, strict=True):
            if sampled.rows.size:
                out.append(_Taken(kind, sampled, _links(kind, sampled.rows, view, linkage, made, joined), states))
        return out

    def _candidates(self, view: SpanView, kind: Kind, who: Identified) -> Candidates:
        out = view.candidates(kind, self._options.sampling.slow_ns)
        self.counts.ignored += out.ignored
        if who.silent is None:
            return out
        silent = who.silent.of(kind)
        self.counts.silenced += int(np.count_nonzero(out.wanted & silent))
        return replace(out, wanted=out.wanted & ~silent)

    def _observe(self, view: View, who: Identified, spans: Sequence[_Taken], unix_ns: int) -> None:
        if not self._options.makes_metrics:
            return
        self.counts.observations += self._measure(view.points(), who, {one.kind: one for one in spans}, unix_ns)

    def _measure(self, many: Iterable[Points], who: Identified, taken: Mapping[Kind, _Taken], unix_ns: int) -> int:
        """Adds observations to the table; how many."""
        count = 0
        for points in many:
            side = who.client if points.kind is Kind.CLIENT else who.server
            resource = self._resources.numbers(who.workloads, of_rows(side, points.rows))
            self.red.observe(points, resource, _exemplars(points, taken.get(points.kind)), now=unix_ns)
            count += len(points.values)
        return count

    def _count_active(self, unix_ns: int) -> None:
        """Sets what there is at this moment of what has begun and not ended."""
        self.red.clear_levels()
        for feed in self._feeds:
            active = feed.source.active
            records = self.begun(feed.source) if active and self._options.makes_metrics else None
            if not active or records is None or not len(records):
                continue
            # Copies of these are at the same taps at the same time: none comes late, and none need be remembered.
            once = Once(replace(self._options.once, slots=1))
            records = once.admit(records, feed.decoder.seen, self.ranks, now_ns=unix_ns, is_last=True).records
            view = feed.decoder.decode(records, self._clock.offsets_ns)
            exports = feed.source.exports(view)
            if exports and exports.own.any():
                records = picked(records, ~exports.own)
                if not len(records):
                    continue
                view = feed.decoder.decode(records, self._clock.offsets_ns)
            who = self.identity.identify(view.flows, is_open=True)
            view.attach(who, self.identity.name, self._routes)
            self._measure(active(view), who, {}, unix_ns)

    def _encode(self, feed: _Feed, records: Records, view: View, who: Identified, spans: Sequence[_Taken]) -> None:
        for one in spans:
            rows, pool = one.sampled.rows, feed.pools[one.kind]
            self.counts.spans += len(rows)
            groups = [group for group in (one.states.group(one.sampled), reasons(one.sampled)) if group is not None]
            if len(rows) >= min(ENOUGH, self._options.spans_at_once):
                self._encode_rows(one.kind, cast(SpanView, view).spans(one.kind, rows), who.of(rows), one.links, groups)
                continue
            if not pool.belongs(who.workloads):
                self._empty(feed, one.kind)
            pool.add(Chosen(picked(records, rows), who.of(rows), one.links, *known(groups, len(rows))))
            if pool.is_full:
                self._empty(feed, one.kind)
        if self._spans_waiting >= self._options.spans_at_once:
            self.flush()

    @property
    def _spans_waiting(self) -> int:
        return len(self._outbox) + sum(len(pool) for feed in self._feeds for pool in feed.pools.values())

    def _empty(self, feed: _Feed, kind: Kind) -> None:
        """Encodes what was chosen to be a span and waits."""
        chosen = feed.pools[kind].take()
        if chosen is None:
            return
        view = cast(SpanView, feed.decoder.decode(chosen.records, self._clock.offsets_ns))
        view.attach(chosen.who, self.identity.name, self._routes)
        columns = view.spans(kind, np.arange(len(chosen.records)))
        self._encode_rows(kind, columns, chosen.who, chosen.links, [chosen.group])

    def _encode_rows(self, kind: Kind, columns: SpanColumns, who: Identified, links: Links, groups: Sequence[Group]) -> None:
        resource = self._resources.numbers(who.workloads, who.client if kind is Kind.CLIENT else who.server)
        spans = self._encoder.encode(replace(columns, groups=[*columns.groups, *groups]), links, resource)
        self._send(self._outbox.add(spans))

    def _send(self, payloads: Sequence[Payload]) -> None:
        for payload in payloads:
            for sink in self.sinks:
                sink.offer(payload)


def _links(kind: Kind, rows: npt.NDArray[np.intp], view: View, linkage: Linkage, derived: ids.Derived, joined: Bools) -> Links:
    """Ids and times of the rows that become spans; what is not sampled needs none."""
    is_server = kind is Kind.SERVER
    made = derived.take(rows, client=not is_server or bool(joined[rows].any()), server=is_server)
    taken = linkage.of(rows)
    client_parent, client_has, server_parent, server_has = ids.parents(made, taken, joined[rows], taken.parent_sampled)
    span, parent, has = (made.server, server_parent, server_has) if is_server else (made.client, client_parent, client_has)
    return Links(made.trace, span, parent, has, view.start_unix_ns[rows], view.end_unix_ns[rows])


def _sliced(admitted: Admitted, *, is_last: bool) -> Iterator[Asking]:
    records, arrived = admitted.records, admitted.arrived
    for start in range(0, len(records), SLICE):
        part = slice(start, start + SLICE)
        yield Asking(Admitted(records[part], None if arrived is None else arrived[part]), has_waited=is_last)


def _joined(who: Identified, samples: Mapping[Kind, Sampled]) -> Bools:
    """Rows whose CLIENT span is sent. Where this row makes it, that is known; elsewhere the other agent decides alike, but for what is slow."""
    joined = who.joined.copy()
    server, client = samples.get(Kind.SERVER), samples.get(Kind.CLIENT)
    if server is not None:
        joined[server.rows[server.kept == KEPT_REASONS.index("slow")]] = False
    if client is not None:
        joined[who.report_client] = False
        joined[client.rows] = True
    return joined


def _exemplars(points: Points, taken: _Taken | None) -> Exemplified:
    if taken is None or not len(points.rows):
        none = np.zeros(0, np.uint64)
        return Exemplified(np.zeros(0, np.intp), np.zeros((0, 16), np.uint8), np.zeros((0, 8), np.uint8), none)
    if np.array_equal(points.rows, taken.sampled.rows):
        return Exemplified(np.arange(len(points.rows)), taken.links.trace, taken.links.span, taken.links.end_unix_ns)
    # Both lists of rows rise: where a row that was taken is among those of the observation.
    rows = np.minimum(np.searchsorted(points.rows, taken.sampled.rows), len(points.rows) - 1)
    at = np.flatnonzero(points.rows[rows] == taken.sampled.rows)
    return Exemplified(rows[at], taken.links.trace[at], taken.links.span[at], taken.links.end_unix_ns[at])
