"""Batches of HTTP records as a busy node would give them, and an identity that knows their workloads; made before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from otel_ebpf_receiver.sources.http import record
from otel_ebpf_receiver.telemetry.columns import I64, U64, Bools, Records
from otel_ebpf_receiver.telemetry.workload import Flows, Identified, Workload

WORKLOADS, ROUTES = 50, 2000
_WORDS = ("orders", "users", "items", "carts", "search", "invoices", "payments", "sessions")


class SameClock:
    """The records' times are Unix times."""

    def offsets_ns(self, times_ns: U64 | I64) -> I64:
        return np.zeros(len(times_ns), np.int64)


def workloads() -> list[Workload]:
    """Workloads with a Resource of 22 attributes, as Kubernetes gives them."""
    return [_workload(number) for number in range(WORKLOADS)]


def _workload(number: int) -> Workload:
    names = (
        "k8s.cluster.uid", "k8s.cluster.name", "k8s.node.name", "k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "k8s.pod.start_time",
        "k8s.pod.ip", "k8s.container.name", "k8s.deployment.name", "k8s.deployment.uid", "k8s.replicaset.name", "k8s.replicaset.uid",
        "container.image.name", "host.name", "service.namespace", "service.instance.id", "service.version",
    )  # fmt: skip
    return Workload({name: f"{name.rpartition('.')[0]}-{number}-7f8d9c6b5" for name in names} | {"service.name": f"service-{number}"})


class KnownByPort:
    """Workload number = the server's port less 10000; the client is the next one."""

    def __init__(self, known: Sequence[Workload]) -> None:
        self._known = known

    @property
    def news(self) -> object:
        return None

    def identify(self, flows: Flows, *, has_waited: bool = False, arrived: Bools | None = None, is_open: bool = False) -> Identified:
        server = (flows.server_port - 10000).astype(np.int32)
        n = len(server)
        client = (server + 1) % len(self._known)
        return Identified(self._known, server, client.astype(np.int32), np.ones(n, bool), np.zeros(n, bool), np.zeros(n, bool))

    def name(self, address: bytes) -> str:
        return ""

    def saw_exports(self, who: Identified, spans: Bools, metrics: Bools) -> None:
        """Nothing exports here."""


def batches(count: int, rows: int, seed: int = 1) -> list[Records]:
    """`count` batches: 50 workloads, 2,000 routes, half of the paths never seen before, 20 clients a workload."""
    random = np.random.default_rng(seed)
    return [_batch(random, rows, number) for number in range(count)]


def _batch(random: np.random.Generator, rows: int, number: int) -> Records:
    out = np.zeros(rows, record.dtype())
    server = random.integers(0, WORKLOADS, rows)
    route = random.integers(0, ROUTES // WORKLOADS, rows)
    unseen = random.random(rows) < 0.5
    start = 1_700_000_000_000_000_000 + number * 100_000_000 + np.arange(rows) * 10_000
    out["request_start_ns"] = start
    out["request_end_ns"] = start + 20_000
    out["response_start_ns"] = start + 20_000 + random.exponential(5e6, rows).astype(np.int64)
    out["response_end_ns"] = out["response_start_ns"] + np.uint64(30_000)
    for name in ("request_seq", "response_seq", "request_ack"):
        out[name] = random.integers(0, 1 << 32, rows)
    out["response_body"] = random.integers(0, 100_000, rows)
    out["client_address"] = np.frombuffer(_addresses(2, random.integers(0, 20, rows)), "V16")
    out["server_address"] = np.frombuffer(_addresses(1, server), "V16")
    out["client_port"], out["server_port"] = random.integers(32768, 60999, rows), 10000 + server
    out["status"] = random.choice([200, 404, 500], rows, p=[0.97, 0.02, 0.01])
    out["method"] = np.where(route % 4 == 3, 3, 1)
    out["minor"], out["tap"], out["direction"] = 1, server + 3, 2
    targets, methods = _targets(random, server, route, unseen), np.where(out["method"] == 1, b"GET ", b"POST ")
    out["line"] = np.char.add(methods, targets)
    out["method_len"] = np.char.str_len(methods) - 1
    out["target_len"] = out["target_wire_len"] = np.char.str_len(targets)
    hosts = np.array([f"service-{n}.shop.svc:{10000 + n}".encode() for n in range(WORKLOADS)])
    out["host"] = hosts[server]
    out["host_len"] = np.char.str_len(hosts)[server]
    agent = b"Mozilla/5.0 (X11; Linux x86_64) benchmark/1.0"
    out["agent"], out["agent_len"] = agent, len(agent)
    return out


def _targets(
    random: np.random.Generator, server: I64, route: I64, unseen: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> np.ndarray[tuple[int], np.dtype[np.bytes_]]:
    out = []
    ids = random.integers(0, 1 << 40, len(server)).tolist()
    for where, which, is_new, number in zip(server.tolist(), route.tolist(), unseen.tolist(), ids, strict=True):
        word = _WORDS[which % len(_WORDS)]
        out.append(f"/api/{word}-{chr(97 + which // 8)}/{number if is_new else 100 + where}/details?page=1".encode())
    return np.array(out)


def _addresses(net: int, host: I64) -> bytes:
    out = np.zeros((len(host), 16), np.uint8)
    out[:, 10:12], out[:, 12], out[:, 14] = 255, 10, net
    out[:, 15] = host % 250 + 1
    return out.tobytes()
