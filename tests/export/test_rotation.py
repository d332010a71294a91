"""Certificates are renewed in their files while the agent runs, and the next connection uses them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_ebpf_receiver.export.destination import Signal
from otel_ebpf_receiver.export.otlp.grpc import GrpcTransport
from otel_ebpf_receiver.export.otlp.http import HttpTransport
from otel_ebpf_receiver.export.otlp.options import OtlpOptions, Protocol
from otel_ebpf_receiver.export.sender import Verdict
from tests.export.certificates import Certificates, make_certificates
from tests.export.payloads import spans
from tests.export.receivers import GrpcReceiver, HttpReceiver

Receiver = type[HttpReceiver] | type[GrpcReceiver]
KINDS = [(Protocol.HTTP, HttpReceiver, HttpTransport, "/v1/traces"), (Protocol.GRPC, GrpcReceiver, GrpcTransport, "")]


@pytest.mark.parametrize(("protocol", "receiver", "transport", "path"), KINDS, ids=["http", "grpc"])
def test_renewed_certificates_are_used(
    protocol: Protocol,
    receiver: Receiver,
    transport: Callable[[OtlpOptions, Signal], HttpTransport | GrpcTransport],
    path: str,
    tmp_path: Path,
) -> None:
    """After authority, key and certificate changed on both sides, what was refused in between goes through without a restart."""
    for name in ("old", "new", "used"):
        (tmp_path / name).mkdir()
    old, new = make_certificates(tmp_path / "old"), make_certificates(tmp_path / "new")
    used = _install(old, tmp_path / "used")
    with receiver(tls=old, client_required=True) as first:
        endpoint, port = first.endpoint, first.port
        options = OtlpOptions(
            endpoint + path,
            protocol,
            timeout_s=5.0,
            certificate=str(used.authority),
            client_key=str(used.client_key),
            client_certificate=str(used.client),
        )
        sender = transport(options, Signal.TRACES)
        before = sender.send(spans(1).body)
    with receiver(tls=new, client_required=True, port=port) as second:
        between = sender.send(spans(1).body)
        used.client.write_bytes(new.client.read_bytes())
        half = sender.send(spans(1).body)
        _install(new, tmp_path / "used")
        after = sender.send(spans(1).body)
        sender.close()

    assert (before.verdict, between.verdict, half.verdict, after.verdict) == (
        Verdict.ACCEPTED,
        Verdict.RETRY,
        Verdict.RETRY,
        Verdict.ACCEPTED,
    )
    assert (first.spans, second.spans) == (1, 1)


def _install(made: Certificates, folder: Path) -> Certificates:
    names = ("authority", "server", "server_key", "client", "client_key")
    return Certificates(*(Path(shutil.copy(getattr(made, name), folder / name)) for name in names))
