"""The scrape endpoint: metrics requests in, `/metrics` out. Wants cumulative temporality; shows the values of the last interval."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from otel_ebpf_receiver.export.complaints import Complaints
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.prometheus.series import EXPIRE_S, SERIES_MAX, SeriesStore
from otel_ebpf_receiver.export.prometheus.text import render
from otel_ebpf_receiver.export.queue import Books, Payload, QueueLimits
from otel_ebpf_receiver.export.sender import Sender
from otel_ebpf_receiver.status.pages import Answer, PageServer

logger = logging.getLogger(__name__)

SCRAPE_MAX = 256 << 20
"""Of the text: 100,000 series that are mostly buckets come to this."""


@dataclass(frozen=True, slots=True)
class PrometheusOptions:
    """Where it listens, by the specification's defaults (`OTEL_EXPORTER_PROMETHEUS_HOST`, `_PORT`), and its bounds."""

    host: str = "127.0.0.1"
    port: int = 9464
    series_max: int = SERIES_MAX
    expire_s: float = EXPIRE_S


class PrometheusDestination:
    """Fulfils `Destination` for metrics. Raises `AgentError` at construction when the address cannot be had."""

    def __init__(self, options: PrometheusOptions | None = None, *, name: str = "prometheus", limits: QueueLimits | None = None) -> None:
        options = options or PrometheusOptions()
        self.name = name
        self.signals = frozenset({Signal.METRICS})
        self.is_cumulative = True
        self._store = SeriesStore(series_max=options.series_max, expire_s=options.expire_s)
        self._sender = Sender(
            (limits or QueueLimits()).metrics(),
            self._store,
            name="prometheus-series",
            split=lambda payload: [payload],
            complaints=Complaints(logger, {"destination": name, "signal": Signal.METRICS.value}),
        )
        self._server = PageServer(
            f"exporter '{name}'",
            {"/metrics": self._page},
            section=f"exporters.{name}",
            host=options.host,
            port=options.port,
            answer_max=SCRAPE_MAX,
        )
        self.port = self._server.port

    def start(self) -> None:
        """Starts taking requests and serving scrapes."""
        self._sender.start()
        self._server.start()

    def offer(self, signal: Signal, payload: Payload) -> None:
        """Takes one metrics request; never blocks."""
        self._sender.queue.offer(payload)

    def is_idle(self, signal: Signal) -> bool:
        """Whether everything offered is shown."""
        return self._sender.queue.is_idle

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything offered is shown; whether that was reached in time."""
        return self._sender.queue.flush(timeout_s)

    def finish(self, deadline: float) -> None:
        """No more offers follow."""
        self._sender.finish(deadline)

    def stop(self) -> None:
        """Stops serving. Safe twice and before `start()`."""
        self._sender.stop()
        self._server.stop()

    def books(self) -> Mapping[Signal, Books]:
        """The books of the points; sent is what can be scraped."""
        return {Signal.METRICS: self._sender.queue.books()}

    def _page(self, openmetrics: bool) -> Answer:
        content_type, text = render(self._store.series(), openmetrics=openmetrics)
        return 200, content_type, text
