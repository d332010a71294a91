"""What the documents take from the code is in step with it, and with what is emitted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from docs.generate import architecture
from docs.generate.__main__ import files
from docs.generate.own import own_instruments
from docs.generate.telemetry import BOTH, CLIENT, FLAGS, RESOURCE, SERVER, SPAN, kubernetes, labels
from otel_ebpf_receiver.sources.http import names as http
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.http.record import Error, Flag, Side
from otel_ebpf_receiver.telemetry.routes import RouteOptions, RoutePattern
from otel_ebpf_receiver.telemetry.sampling import SamplingOptions
from otel_ebpf_receiver.telemetry.workload import Workload
from tests.agent.process import agent, curl, http_server
from tests.agent.test_export import SOON, attributes
from tests.capture.namespaces import join, namespace
from tests.export.receivers import HttpReceiver
from tests.sources import line
from tests.sources.records import make

DOCS = Path(__file__).parents[2] / "docs"
EVERYTHING = {flag: int(flag) for flag in Flag}


def test_pages_are_what_the_code_makes() -> None:
    """`scripts/docs` would change nothing in the tree."""
    assert {name: (DOCS / name).read_text() for name in files()} == files()


def test_the_drawing_shows_every_import_and_no_other() -> None:
    """A dot for each floor that a floor imports; each goes down, as the import check has it."""
    order, used = architecture.floors(), architecture.imports()

    assert architecture.drawing().count("<circle") == sum(map(len, used.values())) > 20
    assert all(order.index(below) > order.index(above) for above, many in used.items() for below in many)
    assert used["pipeline"] >= {"sources", "telemetry"}
    assert set(architecture.WORDS) == set(order)


def emitted() -> line.Ran:
    """Spans of everything that can happen to an exchange, with every switch on."""
    exchanges = make(
        {"target": "/users/7?token=x&a=b", "flags": sum(EVERYTHING.values()), "slots": ("203.0.113.9", "en")},
        {"method": "BREW", "target": "/pot", "status": 418},
        {"target": "/gone", "status": 0, "response_start_ns": 0, "error": int(Error.RESET), "side": int(Side.SERVER)},
        {"target": "/sad", "status": 503},
        slots=2,
    )
    options = HttpOptions(headers=("x-forwarded-for", "accept-language"), query=True, body_sizes=True, first_byte=True, active=True)
    identity = line.Known(
        Workload({"service.name": "shop", "service.namespace": "front"}), Workload({"service.name": "caller", "service.namespace": "back"})
    )
    routes = RouteOptions((RoutePattern("/users/{id}"),))
    return line.run(
        exchanges, options=options, identity=identity, routes=routes, begun=make({"status": 0, "response_start_ns": 0}, slots=2)
    )


def capped() -> line.Ran:
    """Spans of many exchanges under a cap and with the rules that keep some all the same."""
    many = make(*({"target": f"/{number}", "status": 500 if number % 2 else 200} for number in range(400)))
    sampling = SamplingOptions("traceidratio", 0.5, spans_per_second=50, keep_errors=1.0)
    return line.run(many[:200], many[200:], sampling=sampling)


def test_span_attributes_are_those_that_are_emitted() -> None:
    """Each documented attribute is on spans of its kind, and spans have no other."""
    spans = emitted().spans + capped().spans
    for kind, number in ((SERVER, line.SERVER), (CLIENT, line.CLIENT)):
        documented = {one.name for one in SPAN if one.kind in (BOTH, kind)}
        found = {key for span in spans if span["kind"] == number for key in span["attributes"]}
        headers = {key for key in found if key.startswith(http.REQUEST_HEADER)}

        assert found - headers == {name for name in documented if not name.startswith(http.REQUEST_HEADER)}
        assert bool(headers) == any(name.startswith(http.REQUEST_HEADER) for name in documented)


def test_flags_are_those_that_are_emitted() -> None:
    """All flags have words, and show under their documented names."""
    flags = next(span["attributes"][http.FLAGS] for span in emitted().spans if http.FLAGS in span["attributes"])

    assert list(flags) == [str(flag.name).lower() for flag in FLAGS]
    assert set(FLAGS) == set(Flag)


def test_metrics_are_those_that_are_emitted() -> None:
    """Each metric has the documented name and attributes, and there is no other."""
    text = (DOCS / "telemetry.md").read_text()
    points = emitted().points

    assert {point["metric"] for point in points} == {name for name in _ticked(text, "## Metrics", "Attributes of") if "." in name}
    for kind in ("server", "client"):
        begin = f"Attributes of `http.{kind}.*`:"
        documented = _ticked(text, begin, "\n") - {f"http.{kind}.*"}
        found = {key for point in points if f"http.{kind}." in point["metric"] for key in point["attributes"]}
        assert found == documented


def test_own_telemetry_is_what_an_agent_emits() -> None:
    """A running agent sends the documented metrics, with the documented attributes, on the documented Resource."""
    with namespace() as here, namespace() as there:
        join(here, there)
        with here.inside():
            receiver = HttpReceiver()
        environ = {**SOON, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EBPF_RECEIVER_STATUS_PAGE": "true"}
        environ["OTEL_BSP_MAX_QUEUE_SIZE"] = "10000"
        with receiver, http_server(there.command()), agent(prefix=here.command(), env=environ) as running:
            running.ready()
            curl(here.command(), "http://10.77.0.2:8080/there")
            receiver.wait_for(spans=1, metrics=4)
            running.stop()

    sent = [
        (attributes(resource.resource.attributes), metric)
        for resource in receiver.metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
    own = [metric for resource, metric in sent if resource["service.name"] == "otel-ebpf-receiver"]
    events = {
        attributes(point.attributes)["event"]
        for metric in own
        if metric.name == "otel_ebpf_receiver.kernel"
        for point in metric.sum.data_points
    }
    text = (DOCS / "telemetry.md").read_text()
    assert {metric.name for metric in own} == {one.instrument.name for one in own_instruments() if one.when != "Kubernetes"}
    for metric in own:
        points = getattr(metric, str(metric.WhichOneof("data"))).data_points
        found = [attributes(point.attributes) for point in points]
        assert set().union(*found) <= labels(metric.name).keys(), metric.name
        for key, words in labels(metric.name).items():
            documented = set(words.split(", ")) if words and key != "event" else None
            values = {str(one[key]) for one in found if key in one}
            assert documented is None or values <= documented, metric.name
            # Those of the exporters depend on which there are.
            assert documented is None or key == "signal" or values == documented, metric.name
    assert events == _ticked(text, "### Events of", "## InfluxDB") - {"otel_ebpf_receiver.kernel"}
    host = next(resource for resource, metric in sent if metric.name == http.SERVER_DURATION)
    assert host.keys() == {name for name, _ in RESOURCE} - {"service.namespace"}


def test_kubernetes_attributes_are_whole() -> None:
    """The page lists what a pod with everything gets, owners of each kind and labels and annotations included."""
    keys = set(kubernetes())

    assert {"service.version", "k8s.pod.uid", "k8s.cronjob.name", "container.image.tags", "k8s.pod.label.KEY"} <= keys
    assert len(keys) > 25
    text = (DOCS / "telemetry.md").read_text()
    assert all(f"`{key}`" in text for key in keys)


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """mkdocs finds no broken link or anchor, and everything that is in the menu."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=DOCS.parent, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.stem for path in DOCS.glob("*.md")}
    assert {path.stem for path in tmp_path.glob("*.html")} >= pages


def _ticked(text: str, begin: str, end: str) -> set[str]:
    """The first code-marked word of each line, or all of one line, between two marks."""
    part = text[text.index(begin) :]
    part = part[: part.index(end, 1)]
    lines = part.splitlines()
    if len(lines) == 1:
        return set(part.split("`")[1::2])
    return {row.split("`")[1] for row in lines if row.startswith("| `")}
