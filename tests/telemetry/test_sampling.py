"""Samplers decide as the SDK's do; what is ours (rules, cap) keeps its promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import _sampling_experimental as experimental
from opentelemetry.sdk.trace import sampling as sdk
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState

from otel_ebpf_receiver.telemetry.columns import U8, Linkage
from otel_ebpf_receiver.telemetry.sampling import Candidates, Sampled, Sampler, Sampling, SamplingOptions, States, reasons
from tests.telemetry.test_ids import linkage

STANDARD: dict[Sampler, sdk.Sampler] = {
    "always_on": sdk.ALWAYS_ON,
    "always_off": sdk.ALWAYS_OFF,
    "traceidratio": sdk.TraceIdRatioBased(0.3),
    "parentbased_always_on": sdk.ParentBased(sdk.ALWAYS_ON),
    "parentbased_always_off": sdk.ParentBased(sdk.ALWAYS_OFF),
    "parentbased_traceidratio": sdk.ParentBased(sdk.TraceIdRatioBased(0.3)),
}


def traces(rows: int) -> U8:
    """Random trace ids."""
    return np.random.default_rng(7).integers(0, 256, (rows, 16), dtype=np.uint8)


class Halves:
    """Trace ids as the sampler is given them."""

    def __init__(self, trace: U8) -> None:
        self.high, self.low = trace.view(">u8").astype(np.uint64).T


def candidates(rows: int) -> Candidates:
    """Rows that all want a span and are neither errors nor slow."""
    return Candidates(np.ones(rows, bool), np.zeros(rows, bool), np.zeros(rows, bool))


def decide(options: SamplingOptions, link: Linkage, trace: U8, kind: Candidates | None = None) -> tuple[Sampled, States]:
    """One decision of a fresh sampler over one kind of span."""
    states = States(link)
    return Sampling(options).sample(link, states, Halves(trace), [kind or candidates(len(trace))])[0], states


def asked(sampler: sdk.Sampler, link: Linkage, trace: U8, row: int) -> sdk.SamplingResult:
    """What the SDK's sampler says about one row."""
    trace_id, state = int.from_bytes(trace[row].tobytes()), TraceState.from_header([link.trace_state[row].decode()])
    context = None
    if link.traced[row]:
        flags = TraceFlags(TraceFlags.SAMPLED if link.parent_sampled[row] else 0)
        parent = SpanContext(trace_id, int.from_bytes(link.parent_id[row].tobytes()), is_remote=True, trace_flags=flags, trace_state=state)
        context = api.set_span_in_context(NonRecordingSpan(parent))
    return sampler.should_sample(context, trace_id, "GET", trace_state=state if context else None)


@pytest.mark.parametrize("name", STANDARD)
def test_standard_samplers_are_bit_exact(name: Sampler) -> None:
    """Each of 3,000 decisions, with and without remote parents, equals the SDK's, and no span gets a threshold."""
    link, trace = linkage(3000), traces(3000)
    options = SamplingOptions(name, 0.3, spans_per_second=0)

    sampled, states = decide(options, link, trace)

    expected = [row for row in range(3000) if asked(STANDARD[name], link, trace, row).decision is sdk.Decision.RECORD_AND_SAMPLE]
    assert sampled.rows.tolist() == expected
    assert states.group(sampled) is None
    assert reasons(sampled) is None


@pytest.mark.parametrize("share", [1.0, 0.25, 0.0])
def test_consistent_probability_follows_the_convention(share: float) -> None:
    """Decisions and tracestate equal those of the SDK's own composite sampler with a parent threshold, also for incoming `th` and `rv`."""
    link, trace = linkage(2000), traces(2000)
    headers = [b"", b"ot=th:8", b"vendor=1,ot=th:c;rv:ffffffffffffff", b"ot=rv:00000000000001", b"a=b", b"ot=th:zz;x:y"]
    link = replace(link, trace_state=np.array([headers[row % 6] if link.traced[row] else b"" for row in range(2000)], "S64"))
    oracle = experimental.composite_sampler(experimental.composable_parent_threshold(experimental.composable_traceid_ratio_based(share)))

    sampled, states = decide(SamplingOptions("consistent_probability", share, spans_per_second=0), link, trace)

    results = {row: asked(oracle, link, trace, row) for row in range(2000)}
    assert sampled.rows.tolist() == [row for row, result in results.items() if result.decision is sdk.Decision.RECORD_AND_SAMPLE]
    group = states.group(sampled)
    for place, row in enumerate(sampled.rows.tolist()):
        ours = group.build(place).trace_state if group else ""
        theirs = results[row].trace_state
        assert sorted(filter(None, ours.split(","))) == sorted(f"{key}={value}" for key, value in (theirs or {}).items())


def test_a_cut_tracestate_loses_its_last_member() -> None:
    """Half a member is not passed on."""
    link = linkage(1)
    link.traced[:], link.parent_sampled[:], link.trace_state_cut[:] = True, True, True
    link = replace(link, trace_state=np.array([b"a=1,b=2,halfof"], "S64"))

    sampled, states = decide(SamplingOptions("parentbased_always_on"), link, traces(1))

    group = states.group(sampled)
    assert group is not None
    assert group.build(0).trace_state == "a=1,b=2"


def test_errors_and_slow_ones_are_kept_at_their_own_rate() -> None:
    """What the sampler drops is kept by rule, marked with the rule, and no more of it than the rule's share."""
    link, trace = linkage(4000), traces(4000)
    link.traced[:] = False
    kind = replace(candidates(4000), errors=np.arange(4000) % 4 == 0, slow=np.arange(4000) % 4 == 1)
    options = SamplingOptions("always_off", spans_per_second=0, keep_errors=1.0, keep_slow=0.5)

    sampled, states = decide(options, link, trace, kind)

    group = reasons(sampled)
    assert group is not None
    found = [group.build(place).attributes["otel_ebpf_receiver.sampling.kept"] for place in range(len(sampled.rows))]
    assert found.count("error") == 1000
    assert 400 < found.count("slow") < 600
    assert states.group(sampled) is None


def test_the_cap_lowers_the_probability_and_records_it() -> None:
    """Far above the cap about as many spans leave as it allows, decided by R >= T, told as `th` and as an attribute."""
    link, trace = linkage(50_000), traces(50_000)
    link.traced[:] = False

    sampled, states = decide(SamplingOptions("parentbased_always_on", spans_per_second=1000), link, trace)

    group, why = states.group(sampled), reasons(sampled)
    assert group is not None
    assert why is not None
    assert 800 < len(sampled.rows) < 1200
    threshold = (1 << 56) - round(0.02 * (1 << 56))
    assert group.build(0).trace_state == f"ot=th:{threshold:014x}".rstrip("0")
    assert why.build(0).attributes == {"otel_ebpf_receiver.sampling.probability": 0.02}
    low = trace[:, 9:].astype(np.int64) @ (256 ** np.arange(6, -1, -1))
    assert sampled.rows.tolist() == np.flatnonzero(low >= threshold).tolist()


@pytest.mark.parametrize("name", ["traceidratio", "consistent_probability", "parentbased_traceidratio"])
def test_the_cap_holds_behind_every_sampler(name: Sampler) -> None:
    """The cap takes its share of what the sampler lets through, not of all."""
    link, trace = linkage(50_000), traces(50_000)

    sampled, _ = decide(SamplingOptions(name, 0.1, spans_per_second=1000), link, trace)

    assert 800 < len(sampled.rows) < 1200


def test_the_cap_holds_over_time() -> None:
    """Over ten seconds of a steady overload the cap times the time leaves, and one burst."""
    sampling, total = Sampling(SamplingOptions("always_on", spans_per_second=1000)), 0
    random = np.random.default_rng(3)
    for _ in range(100):
        link, trace = linkage(1000), random.integers(0, 256, (1000, 16), dtype=np.uint8)
        total += len(sampling.sample(link, States(link), Halves(trace), [candidates(1000)])[0].rows)
        sampling.refill(0.1)

    assert 10_000 < total < 11_500


def test_below_the_cap_nothing_changes() -> None:
    """Without overload every span leaves, without a mark."""
    sampled, states = decide(SamplingOptions("always_on", spans_per_second=1000), linkage(900), traces(900))

    assert len(sampled.rows) == 900
    assert states.group(sampled) is None
    assert reasons(sampled) is None


@pytest.mark.parametrize("per_second", [0, 100_000])
def test_relief_thins_with_or_without_a_cap(per_second: int) -> None:
    """A share that overload asks for is kept to, is told by `th`, and is taken back."""
    link, trace = linkage(4000), traces(4000)
    link.traced[:] = False
    sampling = Sampling(SamplingOptions("always_on", spans_per_second=per_second))
    sampling.relief = 0.25

    (thinned,) = sampling.sample(link, States(link), Halves(trace), [candidates(4000)])
    sampling.relief = 1.0
    (whole,) = sampling.sample(link, States(link), Halves(trace), [candidates(4000)])

    assert 850 < len(thinned.rows) < 1150
    assert set(thinned.threshold.tolist()) == {3 << 54}
    assert thinned.probability == 0.25
    assert len(whole.rows) == 4000
    assert set(whole.threshold.tolist()) == {-1}
