"""Names the agent to the servers it exports to."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def user_agent() -> str:
    """`otel_ebpf_receiver/VERSION`; without version where the package is not installed."""
    try:
        return f"otel_ebpf_receiver/{version('otel-ebpf-receiver')}"
    except PackageNotFoundError:
        return "otel_ebpf_receiver"
