"""The agent and a real Prometheus, by its OTLP receiver and by its scrape: what PromQL answers is the load that was sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.collector import HTTP, Collector
from tests.interop.node import Load, Node, send, wait_until
from tests.interop.prometheus import URL, Prometheus, prometheus
from tests.interop.watched import settings, watching

FAMILY = "http_server_request_duration_seconds"
FIRST_SEEN_S = 8
"""After the first request, at the latest: Prometheus looks at its targets for the first time five seconds after its own start."""
PATHS = ["/200/0/a", "/200/0/b", "/200/0/c", "/200/150/slow", "/500/0/d"]
"""One in five fails, one in five takes 150 ms: the 70th percentile is below 50 ms, the 99th in (100, 250]."""
OTLP = {"otlp": {"traces": {"endpoint": f"http://{HTTP}/v1/traces"}, "metrics": {"endpoint": f"{URL}/api/v1/otlp/v1/metrics"}}}
SCRAPE = {"otlp": {"traces": {"endpoint": f"http://{HTTP}/v1/traces"}}, "metrics": ["prometheus"]}
WAYS = {"otlp": OTLP, "scrape": SCRAPE}


def counted(told: Prometheus, family: str = FAMILY) -> dict[str, int]:
    """Requests by status code."""
    return {
        status: int(count)
        for status, count in told.by("http_response_status_code", f"sum by (http_response_status_code) ({family}_count)").items()
    }


def by_text(answers: Counter[int]) -> dict[str, int]:
    """The same of what was answered."""
    return {str(status): count for status, count in answers.items()}


def wait_counted(told: Prometheus, answers: Callable[[], Counter[int]]) -> None:
    """Until Prometheus has counted each answer."""
    wait_until(lambda: counted(told) == by_text(answers()), f"Prometheus counts {by_text(answers())}, not {counted(told)}")


@pytest.mark.parametrize("way", WAYS)
def test_rate_errors_and_duration(here: Node, tmp_path: Path, way: str) -> None:
    """Rate, share of errors and percentiles of PromQL agree with the load; exemplars lead to spans that the Collector has."""
    collector = Collector(here, tmp_path)
    try:
        collector.start()
        with prometheus(here, tmp_path) as told, watching(here, tmp_path, settings(exporters=WAYS[way])) as watched:
            with Load(here, PATHS, per_second=20) as load:
                load.wait_more(500)
            wait_counted(told, lambda: load.answers)
            clients = counted(told, "http_client_request_duration_seconds")
            errors = told.number(f'sum({FAMILY}_count{{http_response_status_code=~"5.."}}) / sum({FAMILY}_count)')
            # Over the last seconds of the load: what a counter was when Prometheus first saw it is no increase.
            spent_s = load.ended_s - load.began_s
            rate = told.number(f"sum(rate({FAMILY}_count[{int(spent_s - FIRST_SEEN_S)}s]))", load.ended_s)
            quantiles = {part: told.number(f"histogram_quantile({part}, sum by (le) ({FAMILY}_bucket))") for part in (0.7, 0.99)}
            watched.settled("traces", 2 * load.answers.total())
            spans = {(span.trace_id, span.span_id) for span in collector.spans()}
            exemplars = told.exemplars(f"{FAMILY}_bucket", load.began_s - 10, load.ended_s + 60)
            labels = told.query(f"{FAMILY}_count")[0]["metric"]
    finally:
        collector.server.stop()

    assert clients == by_text(load.answers)
    assert errors == pytest.approx(load.answers[500] / load.answers.total())
    assert rate == pytest.approx(load.answers.total() / spent_s, rel=0.2)
    assert quantiles[0.7] <= 0.05
    assert 0.1 < quantiles[0.99] <= 0.25
    assert exemplars
    assert {(one["labels"]["trace_id"], one["labels"]["span_id"]) for one in exemplars} <= spans
    assert labels["job"] == "demo/api"
    assert labels["service_name" if way == "otlp" else "service"] == "api"


def test_the_scrape_is_valid(here: Node, tmp_path: Path) -> None:
    """Prometheus finds nothing wrong with the agent's exposition: the target is up, and each series has job, instance, service and namespace."""
    with prometheus(here, tmp_path) as told, watching(here, tmp_path, settings(exporters={"metrics": ["prometheus"], "traces": ["none"]})):
        answers = send(here, PATHS)
        wait_counted(told, lambda: answers)
        up = told.number('up{job="agent"}')
        labels = told.query(f"{FAMILY}_count")[0]["metric"]
        target = told.query("target_info")[0]["metric"]

    assert up == 1
    assert (labels["job"], labels["service"], labels["namespace"]) == ("demo/api", "api", "demo")
    assert labels["instance"]
    assert target["job"]


def test_prometheus_is_killed_under_load(here: Node, tmp_path: Path) -> None:
    """SIGKILL in mid-load and a new start on the same data: the counters are exact in the end, and the agent's books balance."""
    config = settings(exporters={"metrics": ["otlp"], "traces": ["none"], **OTLP})
    with prometheus(here, tmp_path) as told, watching(here, tmp_path, config) as watched:
        with Load(here, PATHS, per_second=50) as load:
            load.wait_more(50)
            told.server.kill()
            load.wait_more(50)
            told.server.start()
            load.wait_more(50)
        wait_counted(told, lambda: load.answers)
        books = watched.settled("metrics")

    assert books.balance == 0
    assert (books.failed, books.dropped, books.rejected) == (0, 0, 0)


def test_delta_is_taken_where_it_is_allowed(here: Node, tmp_path: Path) -> None:
    """With the feature that turns deltas into totals, deltas of the agent add up to the load."""
    config = settings(exporters={"metrics": ["otlp"], "traces": ["none"], **OTLP})
    env = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
    with prometheus(here, tmp_path, features=("otlp-deltatocumulative",)) as told, watching(here, tmp_path, config, env) as watched:
        with Load(here, PATHS, per_second=50) as load:
            load.wait_more(100)
        wait_counted(told, lambda: load.answers)
        books = watched.settled("metrics")

    assert books.balance == 0
    assert books.sent == books.received
