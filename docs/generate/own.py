"""The agent's own instruments as the code registers them, without an agent: for the reference and for what asks for them by name."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from otel_ebpf_receiver.agent import cluster, counting
from otel_ebpf_receiver.agent.page.live import LivePage
from otel_ebpf_receiver.export.own_books import count_books
from otel_ebpf_receiver.status.counters import Counters, Instrument, Kind
from otel_ebpf_receiver.status.exposition import metric_name


@dataclass(frozen=True, slots=True)
class Own:
    """An instrument and its name in Prometheus; `when`: what must be on for it; empty: always there."""

    instrument: Instrument
    when: str = ""

    @property
    def prometheus(self) -> str:
        """As `/metrics` and an OTLP receiver name it."""
        kind = self.instrument.kind
        return metric_name(self.instrument.name, self.instrument.unit, is_counter=kind is Kind.COUNTER, is_gauge=kind is Kind.GAUGE)


class _Listed(Counters):
    """Keeps what is registered, and reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Instrument] = {}

    def _declare(self, instrument: Instrument) -> None:
        super()._declare(instrument)
        self.found[instrument.name] = instrument


def own_instruments() -> list[Own]:
    """Every instrument that a running agent registers, by name."""
    counters, nothing = _Listed(), cast(Any, SimpleNamespace())
    counting.register(counters, nothing, nothing, nothing, nothing)
    count_books(counters, [])
    when = dict.fromkeys(counters.found, "")
    cluster.register(counters, nothing, nothing)
    when |= dict.fromkeys(counters.found.keys() - when.keys(), "Kubernetes")
    LivePage(dict).register(counters)
    return [Own(counters.found[name], when.get(name, "the live page")) for name in sorted(counters.found)]
