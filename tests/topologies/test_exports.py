"""Telemetry on the wire is no traffic of anybody's: exports of these agents, and those of a workload's own SDK."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.export.receivers import HttpReceiver
from tests.topologies.stage import PORT, Pod, counted, load, made_of, serving, spans, told

IDLE_S = 6.0
EXPORT = """
import sys
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(sys.argv[1])))
provider.get_tracer("app").start_span("GET").end()
provider.shutdown()
"""


def collector(pod: Pod) -> HttpReceiver:
    """A receiver of OTLP in a pod."""
    with pod.ns.inside():
        return HttpReceiver(host=pod.address, port=PORT)


def test_idle_agents_tell_of_nothing(tmp_path: Path) -> None:
    """Two agents send to one Collector pod through its Service: what leaves one node and arrives at the other is seen, counted, not told."""
    with made_of(tmp_path, 2) as made:
        pod = made.nodes[1].pod("collector")
        made.route()
        made.service("collector", "10.96.0.4", pod)
        with collector(pod) as receiver, made.watched(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://10.96.0.4"}) as both:
            time.sleep(IDLE_S)
            idle = receiver.spans
            pages = [one.page("/metrics") for one in both]
            assert [one.stop() for one in both] == [0, 0]

    peers = {one.peer.rpartition(":")[0] for one in receiver.requests}
    exported = [line for page in pages for line in page.splitlines() if 'fate="exports"' in line]
    assert len(receiver.requests) > 6
    assert len(peers) == 2
    assert idle == 0
    assert any(float(line.split()[-1]) > 0 for line in exported)


def test_an_app_with_an_sdk_of_its_own_is_silenced_by_signal(tmp_path: Path) -> None:
    """Its spans were seen leaving: it gives no spans any more; its metrics were not, so they stay. The pod that it asks is told as ever."""
    with made_of(tmp_path) as made:
        (node,) = made.nodes
        app, back, sink = node.pod("app"), node.pod("back"), node.pod("collector")
        with serving(back), collector(sink), made.watched() as (watching,):
            load(app.command(), f"http://{back.address}:{PORT}/before", 4)
            command = app.command(sys.executable, "-c", EXPORT, f"http://{sink.address}:{PORT}/v1/traces")
            subprocess.run(command, check=True, capture_output=True, timeout=30)
            # The pipeline's round, and the next snapshot.
            time.sleep(3.0)
            load(app.command(), f"http://{back.address}:{PORT}/after", 4)
            time.sleep(0.5)
            metrics = watching.page("/metrics")
            assert watching.stop() == 0

    assert told(watching, "/before") == {("C", app.uid): 4, ("S", back.uid): 4}
    assert told(watching, "/after") == {("S", back.uid): 4}
    assert counted(watching)["C", app.uid] == 9
    assert {one.parent for one in spans(watching, "/after")} == {b""}
    assert [line for line in metrics.splitlines() if 'fate="instrumented_spans"' in line and float(line.split()[-1]) == 4]
