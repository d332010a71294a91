"""The configuration file: what is accepted, and every mistake told with its line and key."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from pathlib import Path

import pytest

from otel_ebpf_receiver.config.key import declared
from otel_ebpf_receiver.config.load import Flag, load, load_text
from otel_ebpf_receiver.config.schema import Config, Route, Service, TapMode, Taps
from otel_ebpf_receiver.errors import ConfigError
from otel_ebpf_receiver.telemetry.wire import PAYLOAD_MAX_BYTES

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "otel-ebpf-receiver.yaml"


def problems(text: str, **environ: str) -> list[str]:
    """The lines of the error that `text` gives."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, "agent.yaml", environ)
    return str(caught.value).splitlines()


def config(text: str, **environ: str) -> Config:
    """The configuration that `text` gives."""
    return load_text(text, "agent.yaml", environ).config


def test_nothing_at_all_is_the_default() -> None:
    """No file, an empty one and one of empty sections are the same."""
    assert load().config == config("") == config("# nothing\n") == config("http:\ntelemetry:\n") == Config()


@pytest.mark.parametrize("name", ["spans_bytes", "metrics_bytes"])
def test_a_queue_smaller_than_a_request_is_refused(name: str) -> None:
    """It would take none of the full ones, ever."""
    (problem,) = problems(f"exporters: {{queues: {{{name}: {PAYLOAD_MAX_BYTES}}}}}")

    assert f"exporters.queues.{name}" in problem


def test_the_shipped_file_explains_every_key_and_changes_none() -> None:
    """The default configuration names each key once, and loading it with every key uncommented gives the defaults."""
    lines = DEFAULT_FILE.read_text().splitlines()
    text = "\n".join(line.replace("#: ", "", 1) if line.lstrip().startswith("#: ") else line for line in lines)

    loaded = load_text(text, "agent.yaml")

    assert load(str(DEFAULT_FILE)).config == Config()
    assert loaded.config == Config()
    assert {path for path, origin in loaded.origins.items() if origin == "default"} == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", Taps()),
        ("host", Taps(TapMode.HOST)),
        ("{bridge: cni0}", Taps(TapMode.BRIDGE, ("cni0",))),
        ("{bridge: [cni0, docker0]}", Taps(TapMode.BRIDGE, ("cni0", "docker0"))),
        ("'bridge: cni0'", Taps(TapMode.BRIDGE, ("cni0",))),
        ("eth0", Taps(TapMode.NAMES, ("eth0",))),
        ("[eth*, lo]", Taps(TapMode.NAMES, ("eth*", "lo"))),
    ],
)
def test_taps(text: str, expected: Taps) -> None:
    """Every form of `capture.taps`."""
    assert config(f"capture: {{taps: {text}}}").capture.taps == expected


def test_values_take_their_type() -> None:
    """Sizes and times with units, networks, lists, a single entry for a list, groups and their short form."""
    got = config("""
capture: {ring_bytes: 1MiB, addresses: {include: [10.0.0.0/8, "fe80::1"]}}
http: {headers: x-forwarded-for}
telemetry:
  metrics: {interval_s: 500ms, bounds_s: [0.1, 1]}
  resource_attributes: {team: a, number: 5, on: true}
  routes:
    - /users/{id}
    - {pattern: /b/*, service: web}
services: [{name: db, ports: [5432]}]
exporters: {otlp: {timeout_s: 2}}
""")

    assert got.capture.ring_bytes == 1 << 20
    assert got.capture.addresses.include == (ip_network("10.0.0.0/8"), ip_network("fe80::1/128"))
    assert got.http.headers == ("x-forwarded-for",)
    assert got.telemetry.metrics.interval_s == 0.5
    assert got.telemetry.metrics.bounds_s == (0.1, 1.0)
    assert dict(got.telemetry.resource_attributes) == {"team": "a", "number": "5", "on": "true"}
    assert got.telemetry.routes == (Route("/users/{id}"), Route("/b/*", "web"))
    assert got.services == (Service("db", ports=(5432,)),)
    assert got.exporters.otlp.timeout_s == 2.0


def test_all_problems_are_told_at_once() -> None:
    """Each with the line and the path of its key, unknown ones with a suggestion."""
    text = """\
capture:
  ring_bytes: 3MiB
  flws: 3
htp: {}
http:
  target_bytes: 300
  target_bytes: 256
  headers: [a, b, c, d, e]
telemetry:
  sampling: {sampler: alwayson, argument: 2}
  routes: [{pattern: x, servce: a}]
  query: yes
services: [{nam: x}]
exporters: {otlp: {endpoint: collector, timeout_s: true}, traces: [otlp, none]}
status: {port: 99999, enabled: 1}
"""

    told = "\n".join(problems(text))

    for expected in (
        "agent.yaml:2: capture.ring_bytes: 3145728 is not a power of two",
        "agent.yaml:3: capture.flws: is not known; did you mean 'flows'?",
        "agent.yaml:4: htp: is not known; did you mean 'http'?",
        "agent.yaml:7: http.target_bytes: is given twice; first in agent.yaml:6",
        "agent.yaml:6: http.target_bytes: 300 is not a multiple of 8",
        "agent.yaml:8: http.headers: has 5 entries; the most is 4",
        "agent.yaml:10: telemetry.sampling.sampler: 'alwayson' is not known; did you mean 'always_on'?",
        "agent.yaml:10: telemetry.sampling.argument: 2 is too large; the most is 1",
        "agent.yaml:11: telemetry.routes[0].pattern: 'x' is not a path pattern",
        "agent.yaml:11: telemetry.routes[0].servce: is not known; did you mean 'service'?",
        "agent.yaml:12: telemetry.query: is not a group of keys; expected enabled, masked",
        "agent.yaml:13: services[0].nam: is not known; did you mean 'name'?",
        "agent.yaml:13: services[0].name: must not be empty",
        "agent.yaml:14: exporters.otlp.endpoint: 'collector' is not a URL; expected http(s)://host:port",
        "agent.yaml:14: exporters.otlp.timeout_s: true is not a time in seconds",
        "agent.yaml:14: exporters.traces: holds 'none' beside others",
        "agent.yaml:15: status.port: 99999 is too large; the most is 65535",
        "agent.yaml:15: status.enabled: 1 is not true or false",
    ):
        assert expected in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "agent.yaml:1:"),
        ("a: b: c", "agent.yaml:1:"),
        ("- a\n- b", "is not a group of keys"),
        ("text", "is not a group of keys"),
        ("--- {}\n--- {}", "expected a single document"),
        ("http: &x {target_bytes: 64}\nstatus: {<<: *x}", "'<<' is not supported"),
        ("http: !!python/object/apply:os.system [true]", "is not a group of keys"),
        ("ids: {key: !!python/name:os.system x}", "could not determine a constructor"),
        ("a: &a [*a]", "is nested too deeply"),
        ("http: {target_bytes: }", "http.target_bytes: has no value; expected a size in bytes"),
        ("ids: {key: 5}", "ids.key: the value is not text; put it in quotes"),
        ("capture: {taps: {brige: x}}", "capture.taps: is a group of 'brige'; expected auto, host, bridge: NAME"),
        ("capture: {addresses: {include: [10.0.0.1/8]}}", "capture.addresses.include[0]: 10.0.0.1/8 has host bits set"),
        ("exporters: {metrics: [influxdb]}", "exporters.influxdb.url: is needed"),
        (
            "exporters: {metrics: [prometheus]}\ntelemetry: {metrics: {histogram: base2_exponential_bucket_histogram}}",
            "agent.yaml:2: telemetry.metrics.histogram:",
        ),
        ("services: [{name: all}]", "services[0]: 'all' names neither addresses nor ports"),
        ("exporters: {otlp: {client_key: /k}}", "exporters.otlp.client_certificate:"),
        ("exporters: {otlp: {endpoint: 'dns:///a:1'}}", "exporters.otlp.endpoint: 'dns:///a:1' is not a URL"),
        ("telemetry: {metrics: {bounds_s: [1, 1]}}", "must rise"),
        ("telemetry: {metrics: {interval_s: .inf}}", "is not a time in seconds"),
        ("http: {target_bytes: 256.5}", "is not a size in bytes"),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    """Whatever is wrong is a problem told, never an exception of another kind."""
    assert expected in "\n".join(problems(text))


def test_secrets_stay_out_of_messages() -> None:
    """A wrong value of a secret is told without the value."""
    told = problems("exporters: {otlp: {headers: {'bad name': s3cret}}, influxdb: {token: [s3cret]}}", OTEL_EXPORTER_OTLP_HEADERS="s3cret")

    assert len(told) == 3
    assert "s3cret" not in "\n".join(told)


def test_a_file_that_cannot_be_read_is_a_problem() -> None:
    """A missing file, a folder and bytes that are no text."""
    for path in ("/nowhere/at.yaml", "/"):
        with pytest.raises(ConfigError, match=f"{path}: cannot be read"):
            load(path)


def test_precedence_and_origin() -> None:
    """Flag over own variable over standard variable over file over default, and each value says which it was."""
    text = (
        "http: {target_bytes: 64}\ncapture: {taps: host}\nexporters: {otlp: {endpoint: 'http://file:1', timeout_s: 1, compression: gzip}}"
    )
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://standard:1",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3000",
        "OTEL_EBPF_RECEIVER_EXPORTERS_OTLP_ENDPOINT": "http://own:1",
        "OTEL_EBPF_RECEIVER_CAPTURE_TAPS": "lo",
    }

    loaded = load_text(text, "agent.yaml", environ, (Flag("--interface", "capture.taps", ["eth0"]),))

    assert loaded.config.capture.taps == Taps(TapMode.NAMES, ("eth0",))
    assert loaded.config.exporters.otlp.endpoint == "http://own:1"
    assert loaded.config.exporters.otlp.timeout_s == 3.0
    assert {path: loaded.origins[path] for path in ("capture.taps", "exporters.otlp.endpoint", "exporters.otlp.timeout_s")} == {
        "capture.taps": "flag --interface",
        "exporters.otlp.endpoint": "environment OTEL_EBPF_RECEIVER_EXPORTERS_OTLP_ENDPOINT",
        "exporters.otlp.timeout_s": "environment OTEL_EXPORTER_OTLP_TIMEOUT",
    }
    assert loaded.origins["http.target_bytes"] == "agent.yaml:1"
    assert loaded.origins["http.headers"] == "default"


def test_a_value_overridden_is_checked_all_the_same() -> None:
    """A mistake in the file does not hide behind a variable."""
    assert problems("http: {target_bytes: 1}", OTEL_EBPF_RECEIVER_HTTP_TARGET_BYTES="64") == [
        "agent.yaml:1: http.target_bytes: 1 is too small; the least is 64 bytes"
    ]


def test_the_result_cannot_be_changed() -> None:
    """Configuration is data that threads share."""
    got = config("")

    with pytest.raises(dataclasses.FrozenInstanceError):
        got.http.target_bytes = 64  # type: ignore[misc]
    with pytest.raises(TypeError):
        got.exporters.otlp.headers["a"] = "b"  # type: ignore[index]


def test_every_key_has_words_and_a_valid_default() -> None:
    """What the reference is made from is complete."""
    keys = list(declared(Config))

    assert all(one.key.text.strip() for one in keys)
    assert len({one.variable for one in keys}) == len(keys)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding"])
def test_headers_that_frame_a_body_are_refused(name: str) -> None:
    """They are read and not kept; the problem says where their value is."""
    assert f"http.headers: '{name}' is not kept: it says where a request ends; the size of its body is http.request.body.size" in "\n".join(
        problems(f"http: {{headers: [content-type, {name}]}}")
    )
