"""The trial chart: the configurations that it renders start the real Collector, Jaeger and Prometheus, and what the agent sends arrives."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.agent.process import agent
from tests.capture.namespaces import Namespace, namespace
from tests.chart.rendered import TRIAL, Object, Rendered, parsed
from tests.interop.helm import template
from tests.interop.node import API, BRIDGE, SERVICES, Client, Node, wait_for
from tests.interop.server import Server, binary, running

ADDRESSES = {"collector": "10.79.0.11", "jaeger": "10.79.0.12", "prometheus": "10.79.0.13"}
PROGRAMS = {"collector": "otelcol", "jaeger": "jaeger", "prometheus": "prometheus"}
PORTS = {"collector": 4318, "jaeger": 16686, "prometheus": 9090}
WAIT_MS = 30
"""What every answer takes at least."""
BOUNDS_S = (0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The conventions' bounds of durations from there on."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was rendered and runs."""

    node: Node
    rendered: Rendered

    def url(self, name: str) -> str:
        """Of a server."""
        return f"http://{ADDRESSES[name]}:{PORTS[name]}"


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    """The trial as it is installed by default."""
    return parsed(template(chart=TRIAL, release="trial", namespace="trial"))


@pytest.fixture
def trial(here: Node, rendered: Rendered, tmp_path: Path) -> Iterator[Trial]:
    """Three pods on the node's bridge, each with a real server started as its Deployment says; names are resolved as the cluster's would be."""
    hosts = "127.0.0.1 localhost\n" + "".join(f"{address} trial-{name}\n" for name, address in ADDRESSES.items())
    with contextlib.ExitStack() as stack:
        stack.enter_context(resolving(here.host, hosts))
        for number, (name, address) in enumerate(ADDRESSES.items(), 3):
            pod = stack.enter_context(namespace())
            stack.enter_context(resolving(pod, hosts))
            plug(here.host, pod, f"p{number}", address)
            command = [binary(PROGRAMS[name]), *arguments(rendered, name, tmp_path / name)]
            stack.enter_context(running(Server(pod, command, ready(here, name), tmp_path / f"{name}.log")))
        yield Trial(here, rendered)


@contextlib.contextmanager
def resolving(here: Namespace, hosts: str) -> Iterator[None]:
    """Programs that `ip netns exec` starts there see these hosts."""
    folder = Path("/etc/netns") / here.name
    folder.mkdir(parents=True)
    (folder / "hosts").write_text(hosts)
    try:
        yield
    finally:
        shutil.rmtree(folder)


def plug(host: Namespace, pod: Namespace, port: str, address: str) -> None:
    """One more pod on the bridge."""
    host.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", pod.name)
    host.ip("link", "set", port, "master", "br0", "up")
    pod.ip("addr", "add", f"{address}/24", "dev", "eth0")
    pod.ip("link", "set", "eth0", "up")


def arguments(rendered: Rendered, name: str, folder: Path) -> list[str]:
    """Those of the Deployment, with its volumes as folders of this machine, filled from its ConfigMaps."""
    pod = rendered.one("Deployment", f"trial-{name}")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    sources = {volume["name"]: volume.get("configMap", {}).get("name") for volume in pod["volumes"]}
    folders = {}
    for mount in container["volumeMounts"]:
        folders[mount["mountPath"]] = place = folder / mount["name"]
        place.mkdir(parents=True)
        data: Mapping[str, str] = rendered.one("ConfigMap", sources[mount["name"]])["data"] if sources[mount["name"]] else {}
        for file, text in data.items():
            (place / file).write_text(text)

    def here(word: str) -> str:
        option, _, path = word.partition("=")
        inside = [mount for mount in folders if path == mount or path.startswith(f"{mount}/")]
        return f"{option}={folders[inside[0]]}{path[len(inside[0]) :]}" if inside else word

    return [here(word) for word in container["args"]]


def ready(node: Node, name: str) -> Callable[[], bool]:
    """A check that the server answers on the port of its Service."""
    url = f"http://{ADDRESSES[name]}:{PORTS[name]}"

    def is_ready() -> bool:
        if name == "collector":
            return bool(node.ask(f"{url}/v1/traces", b"{}", {"Content-Type": "application/json"}))
        return bool(node.ask(url + {"jaeger": "/api/services", "prometheus": "/-/ready"}[name]))

    return is_ready


def environment(rendered: Rendered) -> dict[str, str]:
    """The agent's plain variables as rendered."""
    return {one["name"]: one["value"] for one in rendered.agent["env"] if "value" in one}


def test_a_trace_and_a_p99_are_read_back(trial: Trial, tmp_path: Path) -> None:
    """Requests between two pods are traces in Jaeger and a quantile in Prometheus, by the way that the trial lays: agent, Collector, backends."""
    node = trial.node
    config = {**yaml.safe_load(trial.rendered.config), "services": SERVICES}
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(config))
    taps = [word for name in BRIDGE for word in ("--interface", name)]
    env = {**environment(trial.rendered), "OTEL_METRIC_EXPORT_INTERVAL": "1000"}

    with agent("--config", str(tmp_path / "agent.yaml"), *taps, prefix=node.host.command(), env=env) as running_agent:
        running_agent.ready()
        slowest_s = 0.0
        client = Client(node.shop, API)
        for _ in range(100):
            began_s = time.monotonic()
            client.get(f"/200/{WAIT_MS}/cart")
            slowest_s = max(slowest_s, time.monotonic() - began_s)
        client.close()
        quantile = 'histogram_quantile(0.99, sum by (le) (rate(http_server_request_duration_seconds_bucket{job="demo/api"}[1m])))'

        def p99() -> float | None:
            found = node.json(f"{trial.url('prometheus')}/api/v1/query", query=quantile)["data"]["result"]
            value = float(found[0]["value"][1]) if found else 0.0
            return value if value > 0 else None

        measured = wait_for(p99, "Prometheus has a p99 of demo/api")
        traces = wait_for(lambda: traces_of(trial, "api"), "Jaeger has a trace with both sides")
        assert running_agent.stop() == 0

    # A quantile is known to its bucket: it ends at the first bound that the slowest request, as its client saw it, stays below.
    assert WAIT_MS / 1000 <= measured <= min(bound for bound in BOUNDS_S if bound >= slowest_s)
    assert {process["serviceName"] for process in traces[0]["processes"].values()} == {"shop", "api"}


def traces_of(trial: Trial, service: str) -> list[Object] | None:
    """Traces of a service that have both spans."""
    end = int((time.time() + 60) * 1e6)
    query = {"service": service, "start": str(end - 600_000_000), "end": str(end), "limit": "50"}
    found = trial.node.json(f"{trial.url('jaeger')}/api/traces", **query)["data"]
    return [one for one in found if len(one["spans"]) == 2] or None


def test_prometheus_has_taken_the_rules(trial: Trial) -> None:
    """The rules of config/prometheus came with the ConfigMap and are in force."""
    groups = trial.node.json(f"{trial.url('prometheus')}/api/v1/rules")["data"]["groups"]

    expected = yaml.safe_load(trial.rendered.one("ConfigMap", "trial-prometheus")["data"]["rules.yaml"])["groups"]

    assert sum(len(one["rules"]) for one in expected) > 5
    assert {one["name"]: len(one["rules"]) for one in groups} == {one["name"]: len(one["rules"]) for one in expected}


def test_grafana_gets_sources_and_dashboards_that_fit(rendered: Rendered) -> None:
    """Each data source is a Service of the trial at a port that it has, and each dashboard is whole."""
    services = {one["metadata"]["name"]: {port["port"] for port in one["spec"]["ports"]} for one in rendered.of("Service")}
    sources = yaml.safe_load(rendered.one("ConfigMap", "trial-grafana")["data"]["datasources.yaml"])["datasources"]
    dashboards = rendered.one("ConfigMap", "trial-grafana-dashboards")["data"]

    for source in sources:
        name, port = source["url"].removeprefix("http://").split(":")
        assert int(port) in services[name]
    assert {source["type"] for source in sources} == {"prometheus", "jaeger"}
    assert len(dashboards) >= 4
    assert all(json.loads(text)["title"] for text in dashboards.values())
