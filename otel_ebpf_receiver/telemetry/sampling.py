"""Which exchanges become spans: the standard samplers bit for bit, consistent probability, rules that keep errors and slow ones, and a cap.

Decisions depend on the trace id (or the `rv` that came with it), so both sides of an exchange and several agents decide alike. It has no clock:
the caller says how much time the cap's budget grew by. The one state is that budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from otel_ebpf_receiver.telemetry import names, tracestate
from otel_ebpf_receiver.telemetry.columns import I64, U8, U64, Bools, Group, Linkage, Part
from otel_ebpf_receiver.telemetry.keys import mix

Sampler = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
    "consistent_probability",
]
_MAX = tracestate.THRESHOLD_MAX
_MASK = np.uint64(_MAX - 1)
_ODD = np.uint64(0x9E3779B97F4A7C15)
KEPT_REASONS = ("", "error", "slow")


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """`spans_per_second` 0: no cap. The shares are of 1; `keep_errors` and `keep_slow` 0: the rule is off."""

    sampler: Sampler = "parentbased_always_on"
    argument: float = 1.0
    spans_per_second: int = 1000
    keep_errors: float = 0.0
    keep_slow: float = 0.0
    slow_ns: int = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Candidates:
    """One kind of span that each row might become. `wanted`: rows that report this kind at all."""

    wanted: Bools
    errors: Bools
    slow: Bools
    ignored: int = 0
    """Rows that were left out of `wanted` because the user wants no spans of them."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Of one kind: rows taken, why against the sampler (0: not against it, index into KEPT_REASONS), and its share under the cap."""

    rows: npt.NDArray[np.intp]
    kept: U8
    threshold: I64
    """What `th` says of each row taken; -1: nothing."""
    probability: float


class Sampling:
    """Decides batch by batch. `probability` is the share that cap and relief let through of the last batch."""

    def __init__(self, options: SamplingOptions) -> None:
        self._options = options
        self._is_parent_based = options.sampler.startswith("parentbased_")
        self._root = options.sampler.removeprefix("parentbased_")
        self._bound = TraceIdRatioBased.get_bound_for_rate(options.argument)
        self._threshold = _threshold(options.argument)
        self._budget = float(options.spans_per_second)
        self.probability = 1.0
        self.relief = 1.0
        """The largest share that may be let through, cap or not; whoever sees that there is more than can be handled lowers it."""

    @property
    def is_off(self) -> bool:
        """Whether no row can ever become a span, so that no id need be made."""
        never = self._root == "always_off" and not self._is_parent_based
        return never and not (self._options.keep_errors or self._options.keep_slow)

    def refill(self, elapsed_s: float) -> None:
        """The cap's budget grows with the time, whether anything comes or not, up to that of a second."""
        self._budget = min(self._budget + elapsed_s * self._options.spans_per_second, float(self._options.spans_per_second))

    def sample(self, linkage: Linkage, states: States, trace: Traces, kinds: Sequence[Candidates], share: float = 1.0) -> list[Sampled]:
        """Decides for every kind. `share`: of the budget, what these rows may take."""
        draws = _Draws(trace, states)
        base = self._take_by_sampler(linkage, draws, states)
        shares = self._shares(base, kinds, max(self._budget, 0.0) * share)
        own = self._told(linkage, states)
        out = [self._take(base, own, draws, kind, shares) for kind in kinds]
        if self._options.spans_per_second:
            self._budget -= sum(len(sampled.rows) for sampled in out)
        return out

    def _take_by_sampler(self, linkage: Linkage, draws: _Draws, states: States) -> Bools:
        """Rows that the sampler takes, before the cap."""
        n, parent = len(linkage.traced), linkage.parent_sampled
        if self._root == "always_off":
            base = np.zeros(n, bool)
        elif self._root == "traceidratio":
            base = np.ones(n, bool) if self._bound > 0xFFFFFFFFFFFFFFFF else draws.trace.low < np.uint64(self._bound)
        elif self._root == "consistent_probability":
            # A remote parent that tells its threshold has decided; one that does not is followed.
            told = np.where(states.threshold >= 0, draws.randomness >= states.threshold, parent)
            base = np.where(linkage.traced, told, draws.randomness >= self._threshold)
        else:
            base = np.ones(n, bool)
        return np.where(linkage.traced, parent, base) if self._is_parent_based else base

    def _told(self, linkage: Linkage, states: States) -> I64:
        """The threshold of each row's decision where `th` may tell it, else -1: a ratio sampler's decision is no R >= T."""
        own = -1
        if self._root == "consistent_probability":
            own = self._threshold
        elif self._root == "always_on" and self.probability < 1.0:
            # Only the cap thins these, and it does so by R >= T.
            own = 0
        follows = self._is_parent_based or self._root == "consistent_probability"
        return np.where(linkage.traced, states.threshold if follows else own, own)

    def _shares(self, base: Bools, kinds: Sequence[Candidates], budget: float) -> tuple[float, float, float]:
        """Shares for what the sampler takes, and for both rules; all 1, or lowered so that the batch fits the budget."""
        options = self._options
        errors, slow = options.keep_errors, options.keep_slow
        if not options.spans_per_second:
            self.probability = self.relief
            return self.relief, errors * self.relief, slow * self.relief
        taken = sum(int(np.count_nonzero(kind.wanted & base)) for kind in kinds)
        by_rule = sum(int(np.count_nonzero(kind.wanted & ~base & kind.errors)) for kind in kinds) * errors
        by_rule += sum(int(np.count_nonzero(kind.wanted & ~base & kind.slow)) for kind in kinds) * slow
        self.probability = min(self.relief, budget / (taken + by_rule)) if taken + by_rule else self.relief
        return self.probability, errors * self.probability, slow * self.probability

    def _take(self, base: Bools, own: I64, draws: _Draws, kind: Candidates, shares: tuple[float, float, float]) -> Sampled:
        # The cap takes its share of what each row's own threshold lets through; where that cannot be told, a draw of its own is independent of it.
        capped = _capped(own, shares[0])
        by_sampler = base if shares[0] >= 1.0 else base & self._is_drawn(own, draws, capped)
        errors, slow = _threshold(shares[1]), _threshold(shares[2])
        by_error = by_slow = np.zeros(len(base), bool)
        if shares[1] > 0.0:
            by_error = kind.errors & (draws.randomness >= errors) & ~by_sampler
        if shares[2] > 0.0:
            by_slow = kind.slow & (draws.randomness >= slow) & ~by_sampler & ~by_error
        rows = np.flatnonzero(kind.wanted & (by_sampler | by_error | by_slow))
        kept = np.where(by_error[rows], 1, np.where(by_slow[rows], 2, 0)).astype(np.uint8)
        threshold = np.where(own[rows] >= 0, capped[rows], -1)
        # What a rule kept was decided at the rule's threshold; only our own sampler claims that anybody may count with it.
        by_rule = (-1, errors, slow) if self._root == "consistent_probability" else (-1, -1, -1)
        return Sampled(rows, kept, np.where(kept > 0, np.array(by_rule, np.int64)[kept], threshold), self.probability)

    def _is_drawn(self, own: I64, draws: _Draws, capped: I64) -> Bools:
        told = own >= 0
        if told.all():
            return draws.randomness >= capped
        return np.where(told, draws.randomness, draws.independent) >= capped


class Traces(Protocol):
    """The trace ids of a batch in two halves, as numbers; made when they are asked for."""

    @property
    def low(self) -> U64: ...

    @property
    def high(self) -> U64: ...


class _Draws:
    """Two numbers below 2^56 per row, equal for equal traces: the convention's, and one that no other sampler has looked at."""

    def __init__(self, trace: Traces, states: States) -> None:
        self.trace, self._states = trace, states

    @cached_property
    def randomness(self) -> I64:
        own = (self.trace.low & _MASK).astype(np.int64)
        return np.where(self._states.randomness >= 0, self._states.randomness, own) if self._states.is_any else own

    @cached_property
    def independent(self) -> I64:
        return (self.trace.high * _ODD >> np.uint64(8)).astype(np.int64)


class States:
    """The trace states of a batch, each distinct one read once."""

    def __init__(self, linkage: Linkage) -> None:
        n = len(linkage.traced)
        self.threshold, self.randomness = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
        self._which = np.zeros(n, np.int64)
        self._parsed, self._headers = [tracestate.TraceState()], [""]
        rows = np.flatnonzero(linkage.traced)
        rows = rows[linkage.trace_state[rows] != b""]
        self.is_any = bool(rows.size)
        """Whether any row has one."""
        if rows.size:
            texts = np.char.add(linkage.trace_state[rows], np.where(linkage.trace_state_cut[rows], b"\x01", b""))
            distinct, where = np.unique(texts, return_inverse=True)
            for text in map(bytes, distinct.tolist()):
                header, is_cut = text.removesuffix(b"\x01"), text.endswith(b"\x01")
                self._parsed.append(tracestate.parse(header, is_cut=is_cut))
                # A header that nobody changes is passed on as it came, unless it is not whole or not text.
                self._headers.append(header.decode() if header.isascii() and not is_cut else "")
            self._which[rows] = where + 1
            self.threshold[rows] = np.array([state.threshold for state in self._parsed[1:]], np.int64)[where]
            self.randomness[rows] = np.array([state.randomness for state in self._parsed[1:]], np.int64)[where]

    def group(self, sampled: Sampled) -> Group | None:
        """The header of every row taken, None where all are empty."""
        which = self._which[sampled.rows]
        if not (which.any() or (sampled.threshold >= 0).any()):
            return None
        _, first, where = np.unique(mix(which, sampled.threshold), return_index=True, return_inverse=True)
        texts = [self._text(int(which[row]), int(sampled.threshold[row])) for row in first]
        # The number of a text holds for this batch only; its key must hold for ever.
        keys = np.array([hash(text) & 0xFFFFFFFFFFFFFFFF for text in texts], np.uint64)
        return Group(keys[where], lambda row: Part(trace_state=texts[where[row]]))

    def _text(self, which: int, threshold: int) -> str:
        text, header = self._parsed[which].text(threshold), self._headers[which]
        # Where nothing changed, the order of the members stays too.
        return header if sorted(header.split(",")) == sorted(text.split(",")) else text


def reasons(sampled: Sampled) -> Group | None:
    """The attributes that tell why a span is there and how thinly spans are; None where there is nothing to tell."""
    if sampled.probability >= 1.0 and not sampled.kept.any():
        return None
    share = {names.PROBABILITY: sampled.probability} if sampled.probability < 1.0 else {}

    def build(row: int) -> Part:
        reason = KEPT_REASONS[sampled.kept[row]]
        return Part(share | ({names.KEPT: reason} if reason else {}))

    return Group(mix(sampled.kept, hash(sampled.probability)), build)


def _threshold(share: float) -> int:
    return _MAX - round(share * _MAX)


def _capped(own: I64, share: float) -> I64:
    """Thresholds that let through `share` of what `own` (-1: nothing is told) does."""
    first = int(own[0]) if len(own) else -1
    if (own == first).all():
        return np.full(len(own), _MAX - round((_MAX - max(first, 0)) * share), np.int64)
    return _MAX - np.rint((_MAX - np.maximum(own, 0)) * share).astype(np.int64)
