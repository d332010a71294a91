"""The agent and a strict vendor's endpoint: what it must be told is set by the standard variables alone."""

from __future__ import annotations

from pathlib import Path

from tests.export.certificates import make_certificates
from tests.interop.node import Load, Node, send, wait_until
from tests.interop.vendor import KEY, PORT, vendor
from tests.interop.watched import settings, watching

DURATION = "http.server.request.duration"
PATHS = ["/200/0/a", "/200/1/b", "/404/0/c", "/500/0/d"]


def variables(certificate: Path, **more: str) -> dict[str, str]:
    """The environment that such a vendor's manual asks for."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{PORT}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate),
        "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={KEY}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        **more,
    }


def test_a_vendor_gets_everything_once(here: Node, tmp_path: Path) -> None:
    """HTTPS, the key, gzip and delta metrics, with a limit that refuses requests in mid-load: every span once, every request in the deltas once."""
    files = make_certificates(tmp_path)
    with vendor(here.host, files) as told, watching(here, tmp_path, settings(), variables(files.authority)) as watched:
        with Load(here, PATHS, per_second=50) as load:
            load.wait_more(50)
            told.over_limit = 4
            wait_until(lambda: told.answers.count(429) == 4, "four requests were refused")
            load.wait_more(50)
        answers = load.answers
        spans = watched.settled("traces", 2 * answers.total())
        wait_until(lambda: told.counted(DURATION) == dict(answers), f"the deltas add up to {dict(answers)}, not {told.counted(DURATION)}")
        points = watched.settled("metrics")

    assert set(told.answers) == {200, 429}
    assert len(told.span_ids()) == len(set(told.span_ids())) == spans.sent == 2 * answers.total()
    assert spans.retried + points.retried > 0
    assert (spans.balance, points.balance) == (0, 0)
    assert (spans.failed, spans.dropped, points.failed, points.dropped) == (0, 0, 0, 0)


def test_a_wrong_key_is_said_and_counted(here: Node, tmp_path: Path) -> None:
    """An answer of 401 is not tried again: what was refused is counted as failed, and the vendor's own words are in the log."""
    files = make_certificates(tmp_path)
    env = variables(files.authority, OTEL_EXPORTER_OTLP_HEADERS="api-key=wrong")
    with vendor(here.host, files) as told, watching(here, tmp_path, settings(), env) as watched:
        answers = send(here, PATHS)
        spans = watched.settled("traces", 2 * answers.total())
        running = watched.running

    assert set(told.answers) == {401}
    assert (spans.sent, spans.failed, spans.retried, spans.balance) == (0, 8, 0, 0)
    assert any("the header api-key is missing or wrong" in line for line in running.err.rest())
