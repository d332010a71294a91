"""The queries of the dashboards and the rules against a real Prometheus that a running agent feeds over OTLP."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.agent.process import agent
from tests.capture.namespaces import Namespace, namespace
from tests.interop.server import binary
from tests.live.links import bridge
from tests.live.servers import path_of, serving

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
ROUTES = {"/ok": "200 OK", "/fail": "500 Sad", "/missing": "404 Gone", "/slow": "200 OK"}
ROUND = {"/ok": 20, "/fail": 10, "/missing": 5, "/slow": 5}
ASKED = sum(ROUND.values())
WINDOW_S = 60
PATIENCE_S = 30.0
BEFORE_S, AFTER_S = 6.0, 5.0
"""Points before and after the round: `rate` adds up to half an interval at either end of what it has, which must be little of it."""
SLOW_S = 0.15
SERVICES = [
    {"name": "shop", "namespace": "front", "addresses": ["10.79.0.2"], "ports": [8080]},
    {"name": "caller", "namespace": "back", "addresses": ["10.79.0.1"]},
]
FILLED = {"$namespace": ".*", "$workload": ".*", "$route": ".*", "$instance": ".*", "$service": "shop", "$__rate_interval": f"{WINDOW_S}s"}
QUIET = {"Age of what is known of Kubernetes", "Exchanges by what is known of their sides"}
"""Panels of what is only there in a cluster; here they are only asked."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server inside a namespace."""

    here: Namespace
    port: int

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        out = subprocess.run(self.here.command("curl", "-sS", "--max-time", "10", url), capture_output=True, text=True, check=True).stdout
        answer = json.loads(out)
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def ask(self, query: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Values by their labels."""
        return {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in self.get("query", query=query)["result"]}

    def one(self, query: str) -> float:
        """The one value of a query."""
        (value,) = self.ask(query).values()
        return value


@contextlib.contextmanager
def prometheus(here: Namespace, folder: Path) -> Iterator[Prometheus]:
    """Prometheus with the configuration and the rules of the tree, evaluated each second."""
    program = binary("prometheus")
    text = (CONFIG / "prometheus" / "prometheus.yaml").read_text().replace("evaluation_interval: 30s", "evaluation_interval: 1s")
    (folder / "prometheus.yaml").write_text(text)
    rules = (CONFIG / "prometheus" / "rules.yaml").read_text().replace("interval: 30s", "interval: 1s")
    (folder / "rules.yaml").write_text(rules)
    with here.inside(), socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = here.command(
        program,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-otlp-receiver",
        "--enable-feature=exemplar-storage",
    )
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        running = Prometheus(here, port)
        try:
            until(lambda: ready(running), lambda: (folder / "log").read_text()[-3000:])
            yield running
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def ready(running: Prometheus) -> bool:
    """Whether the server answers."""
    probe = running.here.command("curl", "-sf", f"http://127.0.0.1:{running.port}/-/ready")
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def until(holds: Any, said: Any = lambda: "") -> None:
    """Waits until `holds()`."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, said()
        time.sleep(0.2)


def answer(peer: socket.socket, head: bytes) -> None:
    """The server's side: a status by path, one path slow."""
    path = path_of(head)
    if path == "/slow":
        time.sleep(SLOW_S)
    peer.sendall(f"HTTP/1.1 {ROUTES[path]}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi".encode())


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, fed with one exchange of each route and then with a known round of them."""
    folder = tmp_path_factory.mktemp("prometheus")
    with namespace() as here, namespace() as asker, namespace() as there:
        # Two pods on a bridge: each call is seen at both of their ports.
        bridge(here, [asker, there])
        with prometheus(here, folder) as running, serving(there, answer, port=8080):
            environ = {
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{running.port}/api/v1/otlp/v1/metrics",
                "OTEL_TRACES_SAMPLER": "always_on",
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces",
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                "OTEL_EBPF_RECEIVER_SERVICES": json.dumps(SERVICES),
                "OTEL_EBPF_RECEIVER_TELEMETRY_ROUTES": json.dumps(sorted(ROUTES)),
            }
            with agent("--interface", "p?", prefix=here.command(), env=environ) as agent_process:
                agent_process.ready()
                total = "sum(http_server_request_duration_seconds_count)"
                ask(asker, dict.fromkeys(ROUTES, 1))
                until(lambda: running.ask(total) == {(): len(ROUTES)}, lambda: agent_process.err.seen)
                time.sleep(BEFORE_S)  # every series has points of before the round
                ask(asker, ROUND)
                until(lambda: running.ask(total) == {(): len(ROUTES) + ASKED}, lambda: running.ask(total))
                time.sleep(AFTER_S)
                yield running
                assert agent_process.stop() == 0


def ask(here: Namespace, counts: dict[str, int]) -> None:
    """So many requests of each path."""
    urls = [f"http://10.79.0.2:8080{path}" for path, count in counts.items() for _ in range(count)]
    subprocess.run(here.command("curl", "-sS", "--max-time", "30", *urls), capture_output=True, check=True)


def panels() -> Iterator[tuple[str, str, str]]:
    """Dashboard, title and expression of every PromQL query."""
    for path in sorted((CONFIG / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                if "expr" in target:
                    yield path.stem, f"{panel['title']} {target['refId']}", target["expr"]


def filled(expr: str) -> str:
    """An expression with the variables as Grafana fills them in when everything is chosen."""
    for name, value in FILLED.items():
        expr = expr.replace(name, value)
    return expr


def labels(**values: str) -> tuple[tuple[str, str], ...]:
    """Labels as `Prometheus.ask` gives them."""
    return tuple(sorted(values.items()))


@pytest.mark.parametrize(("board", "title", "expr"), list(panels()))
def test_every_query_has_a_result(fed: Prometheus, board: str, title: str, expr: str) -> None:
    """No panel is empty while an agent sees traffic."""
    found = fed.ask(filled(expr))

    assert found or title.rpartition(" ")[0] in QUIET
    assert not [labels for labels, value in found.items() if value != value]


def documented() -> list[tuple[str, str]]:
    """Question and query of each row of the page on PromQL."""
    return re.findall(r"^\| ([^|]+) \| `(.+)` \|$", (ROOT / "docs" / "promql.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("question", "query"), documented(), ids=[question for question, _ in documented()])
def test_documented_queries_have_a_result(fed: Prometheus, question: str, query: str) -> None:
    """What the page on PromQL shows works as it stands."""
    found = fed.ask(query)

    assert found
    assert not [labels for labels, value in found.items() if value != value]


def expression(board: str, title: str) -> str:
    """The expression of one panel's query, filled in."""
    return filled(next(expr for where, name, expr in panels() if (where, name) == (board, title)))


def test_rate_errors_and_duration_are_right(fed: Prometheus) -> None:
    """The numbers at the top of the overview are those of the traffic that was made."""
    rate = fed.one(expression("red", "Rate A"))
    errors = fed.one(expression("red", "Errors A"))
    median = fed.one(expression("red", "Duration A"))
    slow = fed.one(expression("red", "p99 A"))

    # `rate` extrapolates to the window's ends, but not beyond a series' beginning.
    assert rate * WINDOW_S == pytest.approx(ASKED, rel=0.15)
    assert errors == pytest.approx(ROUND["/fail"] / ASKED, rel=0.02)
    assert 0 < median < 0.1
    assert 0.1 < slow <= 0.5
    assert fed.one(expression("red", "Workloads A")) == 1


def test_the_table_of_routes_is_right(fed: Prometheus) -> None:
    """Each route has its own rate and share of errors, under its workload and service."""
    rates = fed.ask(expression("red", "By route A"))
    shares = fed.ask(expression("red", "By route B"))
    slow = fed.ask(expression("red", "By route C"))

    where = {path: labels(job="front/shop", service="shop", http_request_method="GET", http_route=path) for path in ROUTES}
    assert rates.keys() == shares.keys() == slow.keys() == set(where.values())
    for path, count in ROUND.items():
        assert rates[where[path]] * WINDOW_S == pytest.approx(count, rel=0.15)
    assert {path: shares[where[path]] for path in ROUTES} == {"/ok": 0, "/fail": 1, "/missing": 0, "/slow": 0}
    assert 0.1 < slow[where["/slow"]] <= 0.5
    assert slow[where["/ok"]] < 0.1


def test_the_client_counts_4xx_as_errors_too(fed: Prometheus) -> None:
    """Asked and answered are told apart: a 404 is an error of the client's side only."""
    shares = fed.ask(expression("red", "Errors by client and server A"))

    assert shares == {labels(job="back/caller", server_address="shop.front"): pytest.approx(15 / ASKED, rel=0.02)}


def test_the_graph_joins_clients_and_servers(fed: Prometheus) -> None:
    """The edge runs between the names under which both answer, and each end is a node."""
    edges = fed.ask(expression("services", "Who asks whom edges"))
    nodes = fed.ask(expression("services", "Who asks whom nodes"))

    ((edge, value),) = edges.items()
    assert dict(edge).items() >= {"id": "back/caller → front/shop", "source": "back/caller", "target": "front/shop"}.items()
    assert value * WINDOW_S == pytest.approx(ASKED, rel=0.15)
    assert nodes.keys() == {labels(id="back/caller"), labels(id="front/shop")}
    assert nodes[labels(id="back/caller")] == 0


def test_the_health_of_the_agent_is_right(fed: Prometheus) -> None:
    """One agent, under its own instance; its books of records add up; the spans that nobody takes are told."""
    assert fed.one(expression("health", "Agents A")) == 1
    assert fed.one(expression("health", "Records lost A")) == 0
    counted = fed.ask("otel_ebpf_receiver_records_total")
    assert {dict(one)["instance"] for one in counted} == {socket.gethostname()}
    fates = {dict(one)["fate"]: value for one, value in counted.items()}
    # Each port is the own tap of one side, so that neither record is a copy.
    assert (fates["admitted"], fates["copies"]) == (2 * (len(ROUTES) + ASKED), 0)
    answered = fed.ask('otel_ebpf_receiver_kernel_total{event="http_answered"}')
    assert set(answered.values()) == {2 * (len(ROUTES) + ASKED)}


def test_exemplars_lead_to_traces(fed: Prometheus) -> None:
    """Points of the duration's histogram carry trace ids, by the name that the provisioned data source looks for."""
    now = time.time()
    found = fed.get("query_exemplars", query="http_server_request_duration_seconds_bucket", start=str(now - 600), end=str(now + 60))

    ids = [exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]]
    assert ids
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_variables_find_their_values(fed: Prometheus) -> None:
    """What Grafana asks to fill the variables has values, and the expressions that take them apart fit."""
    for path in sorted((CONFIG / "grafana" / "dashboards").glob("*.json")):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable["type"] != "query":
                continue
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", filled(variable["query"]["query"]))
            assert found
            values = fed.get(f"label/{found[2]}/values", **{"match[]": found[1]})
            assert values, variable["name"]
            pattern = variable.get("regex", "").strip("/").replace("(?<", "(?P<").replace(r"\/", "/")
            assert [value for value in values if re.search(pattern, value)], variable["name"]


def test_recorded_series_hold_what_the_dashboards_show(fed: Prometheus) -> None:
    """The recording rules run on what the agent sends, and tell the same."""
    until(lambda: len(fed.ask("job:http_server_errors:ratio_rate5m")) == 1)

    assert fed.one("job:http_server_errors:ratio_rate5m") == pytest.approx(ROUND["/fail"] / ASKED, rel=0.02)
    assert fed.one("job:http_server_slow:ratio_rate5m") == 0
    assert fed.ask("job_route:http_server_requests:rate5m").keys() == {
        labels(__name__="job_route:http_server_requests:rate5m", job="front/shop", http_request_method="GET", http_route=path)
        for path in ROUTES
    }
    firing = {dict(one)["long_window"] for one in fed.ask('ALERTS{alertname="HttpErrorBudgetBurn", alertstate="firing"}')}
    assert firing == {"1h", "6h", "1d", "3d"}


def test_promtool_finds_nothing_wrong() -> None:
    """promtool accepts configuration and rules, and its own tests of the rules pass."""
    folder = CONFIG / "prometheus"
    for command in (
        ("check", "rules", "--lint=all", "--lint-fatal", str(folder / "rules.yaml")),
        ("check", "config", "--lint-fatal", str(folder / "prometheus.yaml")),
        ("test", "rules", str(folder / "rules_test.yaml")),
    ):
        done = subprocess.run([binary("promtool"), *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
