"""The verb `run`: checks what is allowed, loads the programs, and runs the agent until it is told to stop."""

from __future__ import annotations

import contextlib
import resource
from typing import TYPE_CHECKING

from otel_ebpf_receiver import memory
from otel_ebpf_receiver.agent import cluster
from otel_ebpf_receiver.agent.load import Stop, load, require_interfaces
from otel_ebpf_receiver.kernel import preflight as checks

if TYPE_CHECKING:
    from otel_ebpf_receiver.config.schema import Config


def run(config: Config, stop: Stop, *, any_architecture: bool) -> int:
    """The agent, until SIGTERM. Raises `AgentError`."""
    checks.require(checks.judge(checks.gather(), any_architecture=any_architecture))
    require_interfaces(config)
    access = cluster.find(config)
    _raise_descriptors()
    memory.tune()
    with contextlib.ExitStack() as stack:
        programs = stack.enter_context(load(config, stop, _modules(config, is_cluster=access is not None)))
        from otel_ebpf_receiver.agent.agent import Agent

        stop.calm()
        agent = Agent(config, programs, stack, access)
        agent.start()
        agent.drain_until(stop)
        agent.finish()
    return 0


def _modules(config: Config, *, is_cluster: bool) -> list[str]:
    """What the agent is going to need, imported while the kernel side compiles; gRPC, 15 MiB, only if it is spoken."""
    wanted = ["otel_ebpf_receiver.agent.agent", "otel_ebpf_receiver.sources.http.decoder"]
    otlp = config.exporters.otlp
    if any((otlp.endpoint, otlp.traces.endpoint, otlp.metrics.endpoint)):
        wanted.append("otel_ebpf_receiver.export.otlp.exporter")
    if "grpc" in (otlp.protocol, otlp.traces.protocol, otlp.metrics.protocol):
        wanted.append("otel_ebpf_receiver.export.otlp.grpc")
    if is_cluster:
        wanted += cluster.MODULES
    return wanted


def _raise_descriptors() -> None:
    """One socket per tap: the usual soft limit of 1,024 is too few for a large node."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
