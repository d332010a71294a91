"""An application with OpenTelemetry's own SDK, the agent and a real Prometheus: each request is counted once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.agent.process import ROOT
from tests.capture.namespaces import Namespace
from tests.interop import workloads
from tests.interop.node import PORT, Client, wait_until
from tests.interop.prometheus import Prometheus, prometheus
from tests.interop.server import Server, running
from tests.interop.test_kubernetes import API, world
from tests.interop.watched import settings, watching

APP = ROOT / "tests/interop/app"
FAMILY = "http_server_request_duration_seconds"
SDK_JOB = "demo/cart"
"""The service that the SDK itself says it is."""
AGENT_JOB = "demo/api"
"""What the agent takes it for: the Deployment."""


def interpreter() -> str:
    """The Python of an environment with the application's libraries, made once for each list of them."""
    wanted = APP / "requirements.txt"
    sum_ = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "otel-ebpf-receiver/app" / sum_
    if not (folder / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
        pip = [str(folder / "bin/pip"), "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--require-hashes"]
        made = subprocess.run([*pip, "--only-binary", ":all:", "-r", str(wanted)], capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"the libraries of an instrumented application cannot be installed: {made.stderr[-500:]}")
        (folder / "made").touch()
    return str(folder / "bin/python")


@contextlib.contextmanager
def application(here: Namespace, folder: Path, endpoint: str) -> Iterator[Server]:
    """It answers on `PORT` of the namespace and exports its own telemetry to the endpoint."""
    variables = {
        "PORT": str(PORT),
        "OTEL_SERVICE_NAME": "cart",
        "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=demo,service.instance.id=by-the-sdk",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{endpoint}/v1/metrics",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{endpoint}/v1/traces",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    command = ["env", *(f"{name}={value}" for name, value in variables.items()), interpreter(), str(APP / "app.py")]
    server = Server(here, command, lambda: listens(here), folder / "app.log")
    with running(server):
        yield server


def listens(here: Namespace) -> bool:
    """Somebody listens on `PORT` there; told without a connection, which would be counted."""
    rows = subprocess.run(here.command("ss", "-Hltn", f"sport = :{PORT}"), capture_output=True, text=True, check=True).stdout
    return bool(rows.strip())


def by_job(told: Prometheus) -> Mapping[str, int]:
    """Requests to the application, by who counted them."""
    return {job: int(count) for job, count in told.by("job", f'sum by (job) ({FAMILY}_count{{job=~"demo/.*"}})').items()}


@pytest.mark.parametrize("choice", ["drop", "keep"])
def test_what_an_sdk_counts_is_not_counted_again(tmp_path: Path, choice: str) -> None:
    """As soon as an application is seen to export, its HTTP metrics are its own: the agent adds none, unless it is told to keep its own."""
    with contextlib.ExitStack() as stack:
        there = stack.enter_context(world(tmp_path, answers=False))
        told = stack.enter_context(prometheus(there.node, tmp_path, address=f"{workloads.NODE_ADDRESS}:9090"))
        exporters = {"otlp": {"endpoint": told.otlp}, "traces": ["none"], "metrics": ["otlp"]}
        config = settings(services=[], exporters=exporters, kubernetes={"instrumented": {"spans": choice, "metrics": choice}})
        env = {"KUBECONFIG": str(there.server.kubeconfig(there.token)), "K8S_NODE_NAME": workloads.NODE}
        watched = stack.enter_context(watching(there.node, tmp_path, config, env))
        stack.enter_context(application(there.node.api, tmp_path, told.otlp))
        client = Client(there.node.shop, API)
        stack.callback(client.close)

        def is_settled() -> bool:
            # The application exports once it has something to say, and the agent learns from that whose telemetry it is.
            client.get("/200/first")
            silenced = watched.counter("identity_total", fate="instrumented_metrics")
            return SDK_JOB in by_job(told) and (silenced > 0 or (AGENT_JOB in by_job(told) and choice == "keep"))

        wait_until(is_settled, "the SDK has counted something, and the agent knows whose it is")
        first = client.answers.total()
        watched.wait_exported("metrics", 2)
        wait_until(lambda: by_job(told)[SDK_JOB] == first, "the SDK has counted the first requests")
        before = by_job(told)
        for number in range(200):
            client.get(f"/{(200, 500)[number % 2]}/cart")
        asked = 'sum(http_client_request_duration_seconds_count{job="demo/shop"})'
        wait_until(lambda: by_job(told)[SDK_JOB] == first + 200, "the SDK has counted all requests")
        wait_until(lambda: told.number(asked) == first + 200, "the agent has counted all requests of the asking side, which has no SDK")
        watched.wait_exported("metrics", 2)
        after = by_job(told)

    grown = {job: after[job] - before.get(job, 0) for job in after if after[job] != before.get(job, 0)}
    assert grown == ({SDK_JOB: 200} if choice == "drop" else {SDK_JOB: 200, AGENT_JOB: 200})
