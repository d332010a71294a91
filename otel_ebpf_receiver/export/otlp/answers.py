"""Reads what OTLP servers answer: partial success, RetryInfo, and their words in the forms they come in."""

from __future__ import annotations

import re

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.sender import Answer, Verdict

Response = ExportTraceServiceResponse | ExportMetricsServiceResponse
RESPONSES: dict[Signal, type[ExportTraceServiceResponse] | type[ExportMetricsServiceResponse]] = {
    Signal.TRACES: ExportTraceServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
}
WORDS_MAX = 240
OVERSIZE = re.compile(r"larger than max|exceeds? (the )?max|too large", re.IGNORECASE)
"""The words for "too large" of the gRPC implementations in C, Go, Java and Rust, which share their status codes with "slow down" and "later"."""


def accepted(response: Response) -> Answer:
    """An accepted request. A present but empty partial_success is full success; words without a count are a warning."""
    if isinstance(response, ExportTraceServiceResponse):
        rejected = response.partial_success.rejected_spans
    else:
        rejected = response.partial_success.rejected_data_points
    return Answer(Verdict.ACCEPTED, response.partial_success.error_message[:WORDS_MAX], rejected=max(0, rejected))


def accepted_bytes(signal: Signal, body: bytes) -> Answer:
    """An accepted request whose answer is still encoded. What is not OTLP is accepted, as the status said so, but not without a word."""
    try:
        return accepted(RESPONSES[signal].FromString(body))
    except DecodeError:
        return Answer(Verdict.ACCEPTED, f"the answer is not OTLP: {words_of_bytes(body)}")


def retry_delay_s(details: bytes | None, retry_info: bytes | None) -> float | None:
    """Seconds of a RetryInfo in `grpc-status-details-bin`, where servers put it, or in a trailer of its own; None without one."""
    try:
        if details is not None:
            for detail in Status.FromString(details).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return float(info.retry_delay.seconds) + float(info.retry_delay.nanos) / 1e9
        if retry_info is not None:
            info = RetryInfo.FromString(retry_info)
            return float(info.retry_delay.seconds) + float(info.retry_delay.nanos) / 1e9
    except DecodeError:
        return None
    return None


def words_of(content_type: str, body: bytes) -> str:
    """The server's words: the message of a `google.rpc.Status`, or the start of a text."""
    if content_type.partition(";")[0].strip().lower() == "application/x-protobuf":
        try:
            return str(Status.FromString(body).message)[:WORDS_MAX]
        except DecodeError:
            pass
    return words_of_bytes(body)


def words_of_bytes(body: bytes) -> str:
    """The start of `body` as text in one line."""
    return " ".join(body[: 4 * WORDS_MAX].decode("utf-8", "replace").split())[:WORDS_MAX]
