"""The whole agent on a node of the tests, set up by a configuration file, and its own books as its status server shows them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.agent.process import AgentProcess, agent
from tests.interop import workloads
from tests.interop.apiserver import ApiServer
from tests.interop.collector import HTTP, Collector
from tests.interop.node import SERVICES, Node, wait_for, wait_until

STATUS = "http://127.0.0.1:14318"
_SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Books:
    """What became of one signal at one destination, by the agent's own counters."""

    received: int
    sent: int
    dropped: int
    failed: int
    rejected: int
    retried: int
    queued: int

    @property
    def balance(self) -> int:
        """What is unaccounted for: must be 0."""
        return self.received - self.sent - self.dropped - self.failed - self.rejected - self.queued


class Watched:
    """A running agent."""

    def __init__(self, node: Node, running: AgentProcess) -> None:
        self.node, self.running = node, running

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Its own counters: name and labels to value."""
        text = self.node.ask(f"{STATUS}/metrics").decode()
        found = [match for line in text.splitlines() if (match := _SAMPLE.match(line))]
        return {(name, frozenset(_LABEL.findall(labels or ""))): float(value) for name, labels, value in (one.groups() for one in found)}

    def counter(self, name: str, **labels: str) -> int:
        """One of them, without its prefix; the sum over the labels not given."""
        wanted = set(labels.items())
        return int(sum(value for (known, has), value in self.counters().items() if known == f"otel_ebpf_receiver_{name}" and wanted <= has))

    def books(self, signal: str, destination: str = "otlp") -> Books:
        """Books of a destination."""
        counted = self.counters()

        def of(name: str) -> int:
            wanted = {("destination", destination), ("signal", signal)}
            return int(
                sum(value for (known, has), value in counted.items() if known == f"otel_ebpf_receiver_export_{name}" and wanted <= has)
            )

        totals = {name: of(f"{name}_total") for name in ("received", "sent", "dropped", "failed", "rejected", "retried")}
        return Books(**totals, queued=of("queued"))

    def wait_seen(self, exchanges: int) -> None:
        """Until so many exchanges came out of the kernel and were told apart from their copies."""
        wait_until(lambda: self.counter("records_total", fate="admitted") >= exchanges, f"{exchanges} exchanges were seen")

    def settled(self, signal: str, received: int = 1, destination: str = "otlp") -> Books:
        """The books once at least so much was handed over and nothing waits any more."""

        def find() -> Books | None:
            books = self.books(signal, destination)
            return books if books.received >= received and not books.queued else None

        return wait_for(find, f"the queue of {signal} is empty")

    def wait_exported(self, signal: str, times: int, destination: str = "otlp") -> None:
        """Until something was sent so many times more: whatever was counted before is at the destination then."""
        for _ in range(times):
            before = self.books(signal, destination).sent
            wait_until(lambda before=before: self.books(signal, destination).sent > before, f"{signal} were exported again")  # type: ignore[misc]

    def log(self) -> str:
        """What it has logged so far, at its end everything."""
        return "\n".join(self.running.err.seen)


def settings(**more: Any) -> dict[str, Any]:
    """Every exchange a span, everything exported about once a second, the two pods named, the status server on; `more` replaces whole sections."""
    base: dict[str, Any] = {
        "services": SERVICES,
        "telemetry": {
            "sampling": {"sampler": "always_on", "spans_per_second": 0},
            "metrics": {"interval_s": 1},
            "spans": {"interval_s": 0.2},
        },
        "status": {"enabled": True},
    }
    return {**base, **more}


@contextlib.contextmanager
def watching(node: Node, folder: Path, config: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Iterator[Watched]:
    """The agent, ready. It must end well after SIGTERM."""
    file = folder / "agent.yaml"
    file.write_text(yaml.safe_dump(dict(config)))
    taps = [word for name in node.taps for word in ("--interface", name)]
    with agent("--config", str(file), *taps, prefix=node.host.command(), env=env) as running:
        running.ready()
        yield Watched(node, running)
        if running.process.poll() is None:
            assert running.stop() == 0, "\n".join(running.err.rest())


@contextlib.contextmanager
def observed(node: Node, api: ApiServer, token: str, folder: Path, **more: Any) -> Iterator[tuple[Watched, Collector]]:
    """The agent, which knows the cluster as far as its token allows, and a Collector that it exports to."""
    collector = Collector(node, folder)
    config = settings(services=[], exporters={"otlp": {"endpoint": f"http://{HTTP}"}}, **more)
    env = {"KUBECONFIG": str(api.kubeconfig(token, "agent.kubeconfig")), "K8S_NODE_NAME": workloads.NODE}
    try:
        collector.start()
        with watching(node, folder, config, env) as watched:
            yield watched, collector
    finally:
        collector.server.stop()
