"""The InfluxDB exporter: spans become points of `traffic`, metrics points of `red`, written in the batches in which they come."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from google.protobuf.message import DecodeError

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.complaints import Complaints
from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.http.connection import Register, Target, register_nothing
from otel_ebpf_receiver.export.http.post import Poster, Resource
from otel_ebpf_receiver.export.http.proxy import proxy_for
from otel_ebpf_receiver.export.influxdb.columns import Columns
from otel_ebpf_receiver.export.influxdb.line import Times
from otel_ebpf_receiver.export.influxdb.red import END, RedLines
from otel_ebpf_receiver.export.influxdb.traffic import traffic_lines
from otel_ebpf_receiver.export.otlp.answers import words_of_bytes
from otel_ebpf_receiver.export.otlp.credentials import verifying_context
from otel_ebpf_receiver.export.otlp.split import cut, splitter
from otel_ebpf_receiver.export.queue import Books, Payload, QueueLimits
from otel_ebpf_receiver.export.sender import Answer, Backoff, Sender, Verdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InfluxOptions:
    """`url` is http(s)://host:port[/prefix] of a server with the v2 write API; token, org and bucket as it knows them."""

    url: str
    token: str = field(default="", repr=False)
    org: str = ""
    bucket: str = ""
    interval_s: float = 60.0
    timeout_s: float | None = 10.0
    is_gzip: bool = False


class LineTransport:
    """Fulfils `Transport`: turns an OTLP request into lines and posts them."""

    def __init__(self, make_lines: Callable[[bytes], list[str]], poster: Poster) -> None:
        self._make_lines = make_lines
        self._poster = poster
        self._body: bytes | None = None
        self._lines: list[str] = []

    def send(self, body: bytes, limit_s: float | None = None) -> Answer:
        """Posts the lines of one request; a request that completes no point is accepted without a post."""
        # A retried request is the same object: sums that it was already added to are not added to again.
        if body is not self._body:
            try:
                self._lines = [line for line in self._make_lines(body) if line]
            except DecodeError as error:
                return Answer(Verdict.REFUSED, str(error))
            self._body = body
        if not self._lines:
            return Answer(Verdict.ACCEPTED)
        return self._poster.post("".join(f"{line}\n" for line in self._lines).encode(), limit_s)

    def abort(self) -> None:
        """Makes a running `send` return."""
        self._poster.abort()

    def close(self) -> None:
        """Closes the connection."""
        self._poster.close()


class InfluxDestination:
    """Fulfils `Destination`. Raises `ExportError` when the options cannot work."""

    def __init__(
        self,
        options: InfluxOptions,
        columns: Columns,
        *,
        signals: frozenset[Signal] = frozenset(Signal),
        name: str = "influxdb",
        limits: QueueLimits | None = None,
        backoff: Backoff | None = None,
        ignore: Register = register_nothing,
        unignore: Register = register_nothing,
    ) -> None:
        self.name = name
        self.signals = signals
        self.is_cumulative = True
        limits = limits or QueueLimits()
        resource = _resource(options)
        times = Times()
        red = RedLines(columns, round(options.interval_s * 1e9))
        makers: dict[Signal, Callable[[bytes], list[str]]] = {
            Signal.TRACES: lambda body: traffic_lines(columns, body, times),
            Signal.METRICS: red.lines,
        }
        self._senders = {
            signal: Sender(
                limits.spans() if signal is Signal.TRACES else limits.metrics(),
                LineTransport(makers[signal], Poster(resource, accepted=_accepted, words=_words, ignore=ignore, unignore=unignore)),
                name=f"influxdb-{signal}",
                # Points of red are sums over requests: one that was split would be counted again.
                split=splitter(signal) if signal is Signal.TRACES else lambda payload: [payload],
                complaints=Complaints(logger, {"destination": name, "signal": signal.value}),
                backoff=backoff,
            )
            for signal in signals
        }

    def start(self) -> None:
        """Starts the senders."""
        for sender in self._senders.values():
            sender.start()

    def offer(self, signal: Signal, payload: Payload) -> None:
        """Queues one OTLP request; never blocks. A request of more spans than the queue may hold is cut first."""
        queue = self._senders[signal].queue
        for part in [payload] if queue.max_items is None else cut(signal, payload, queue.max_items):
            queue.offer(part)

    def is_idle(self, signal: Signal) -> bool:
        """Whether nothing of `signal` is queued or on the wire."""
        return self._senders[signal].queue.is_idle

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything queued is settled; whether that was reached in time."""
        return all(sender.queue.flush(timeout_s) for sender in self._senders.values())

    def finish(self, deadline: float) -> None:
        """No more offers follow; the queued, and what `red` has of an interval that is not over, is to be out by `deadline` (`time.monotonic()`)."""
        if Signal.METRICS in self._senders:
            self._senders[Signal.METRICS].queue.offer(Payload(END, 0))
        for sender in self._senders.values():
            sender.finish(deadline)

    def stop(self) -> None:
        """Waits for the deadline of `finish`, then gives up the rest and counts it."""
        for sender in self._senders.values():
            sender.finish(sender.deadline_or_now())
        for sender in self._senders.values():
            sender.stop()

    def books(self) -> Mapping[Signal, Books]:
        """The books of each signal, in spans and data points."""
        return {signal: sender.queue.books() for signal, sender in self._senders.items()}


def _accepted(body: bytes) -> Answer:
    return Answer(Verdict.ACCEPTED)


def _words(content_type: str, body: bytes) -> str:
    return words_of_bytes(body)


def _resource(options: InfluxOptions) -> Resource:
    try:
        parts = urlsplit(options.url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ExportError(f"exporters.influxdb.url: '{options.url}' is not a URL; expected http(s)://host:port")
    if not options.bucket:
        raise ExportError("exporters.influxdb.bucket: not set; name the bucket to write to")
    tls = verifying_context() if parts.scheme == "https" else None
    query = urlencode({"org": options.org, "bucket": options.bucket, "precision": "ns"})
    headers = {"content-type": "text/plain; charset=utf-8"}
    if options.token:
        headers["authorization"] = f"Token {options.token}"
    port = port or (443 if tls else 80)
    target = Target(parts.hostname, port, tls=tls, proxy=proxy_for(parts.scheme, parts.hostname, port, os.environ))
    return Resource(target, f"{parts.path.rstrip('/')}/api/v2/write?{query}", headers, options.is_gzip, options.timeout_s)
