"""The configuration as the options of telemetry and export, which know no file and no variable. Imported only by who runs the agent."""

from __future__ import annotations

from collections.abc import Mapping

from otel_ebpf_receiver.config.key import declared
from otel_ebpf_receiver.config.otlp import otlp_options
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.options import OtlpOptions
from otel_ebpf_receiver.telemetry.red import MetricOptions
from otel_ebpf_receiver.telemetry.routes import RouteOptions, RoutePattern
from otel_ebpf_receiver.telemetry.sampling import SamplingOptions

NS = 1_000_000_000
BOUNDS = "telemetry.metrics.bounds_s"


def sampling_options(config: Config) -> SamplingOptions:
    """`telemetry.sampling`."""
    sampling = config.telemetry.sampling
    keep = sampling.keep
    return SamplingOptions(
        sampler=sampling.sampler,
        argument=sampling.argument,
        spans_per_second=sampling.spans_per_second,
        keep_errors=keep.errors,
        keep_slow=keep.slow,
        slow_ns=round(keep.slow_s * NS),
    )


def metric_options(config: Config) -> MetricOptions:
    """`telemetry.metrics`. Default bounds are left to the instruments, which advise them."""
    metrics = config.telemetry.metrics
    advised = next(one.default for one in declared(Config) if one.path == BOUNDS)
    return MetricOptions(
        temporality=metrics.temporality,
        histogram=metrics.histogram,
        bounds_s=None if metrics.bounds_s == advised else metrics.bounds_s,
        series_limit=metrics.series_limit,
        memory_bytes=metrics.memory_bytes,
        idle_ns=round(metrics.idle_s * NS),
    )


def route_options(config: Config) -> RouteOptions:
    """`telemetry.routes` and `telemetry.templating`."""
    telemetry = config.telemetry
    patterns = tuple(RoutePattern(route.pattern, route.service) for route in telemetry.routes)
    return RouteOptions(patterns, templating=telemetry.templating.enabled, limit=telemetry.templating.limit)


def exporters(config: Config) -> Mapping[Signal, tuple[str, ...]]:
    """The exporters of each signal by name, the console among them; nothing at all when telemetry is disabled.

    Without a choice: OTLP where it has an endpoint. Without anything to export to, the console.
    """
    if config.telemetry.disabled:
        return {Signal.TRACES: (), Signal.METRICS: ()}
    chosen = {Signal.TRACES: config.exporters.traces, Signal.METRICS: config.exporters.metrics}
    found = {signal: tuple(names or _by_default(config, signal)) for signal, names in chosen.items()}
    is_undecided = not any(chosen.values()) and not any(found.values())
    found = {signal: tuple(name for name in names if name != "none") for signal, names in found.items()}
    with_console = config.exporters.console.enabled
    if with_console is None:
        with_console = is_undecided
    if with_console and "console" not in found[Signal.TRACES]:
        found[Signal.TRACES] += ("console",)
    if config.exporters.console.enabled is False:
        found = {signal: tuple(name for name in names if name != "console") for signal, names in found.items()}
    return found


def _by_default(config: Config, signal: Signal) -> tuple[str, ...]:
    otlp = config.exporters.otlp
    own = otlp.traces if signal is Signal.TRACES else otlp.metrics
    return ("otlp",) if otlp.endpoint or own.endpoint else ()


def otlp_signals(config: Config) -> dict[Signal, OtlpOptions]:
    """Options of each signal that goes out by OTLP. Raises `ExportError`."""
    return {signal: otlp_options(config, signal) for signal, names in exporters(config).items() if "otlp" in names}
