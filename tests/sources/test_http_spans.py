"""Spans of HTTP exchanges follow the semantic conventions and this project's own rules, each on a record of its own."""

from __future__ import annotations

from typing import Any

import pytest

from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.http.redact import Masks
from otel_ebpf_receiver.telemetry.routes import RouteOptions, RoutePattern
from otel_ebpf_receiver.telemetry.sampling import SamplingOptions
from otel_ebpf_receiver.telemetry.workload import Workload
from tests.sources.line import CLIENT, SERVER, Known, run
from tests.sources.records import MS, START_NS, address, make

OWN = "otel_ebpf_receiver."
ERROR, UNSET = 2, 0
RESET, CLOSED = 1, 2
BY_CLIENT, BY_SERVER = 1, 2


def test_a_plain_exchange_has_exactly_these_attributes() -> None:
    """Both kinds of span carry what the conventions ask for, with the right types, and nothing else."""
    ran = run(make({"target": "/a/b?x=1", "request_body": 5, "response_body": 700, "client": "2001:db8::1"}))

    common = {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
        "server.address": "shop.example",
        "server.port": 8080,
        "user_agent.original": "curl/8",
        "http.request.body.size": 5,
        "http.response.body.size": 700,
        OWN + "request.transfer_ns": MS,
        OWN + "response.wait_ns": 2 * MS,
        OWN + "response.transfer_ns": 4 * MS,
    }
    peer = {"network.peer.address": "2001:db8::1", "client.address": "2001:db8::1", "network.peer.port": 40000}
    assert ran.attributes(SERVER) == common | peer | {"url.scheme": "http", "url.path": "/a/b"}
    peer = {"network.peer.address": "10.0.0.2", "network.peer.port": 8080}
    assert ran.attributes(CLIENT) == common | peer | {"url.full": "http://shop.example:8080/a/b"}
    span = ran.span(SERVER)
    assert (span["name"], span["status"], span["start"], span["end"]) == ("GET", UNSET, START_NS, START_NS + 7 * MS)
    assert span["resource"] == {"service.name": "unknown_service", "telemetry.sdk.name": "otel_ebpf_receiver", "telemetry.sdk.version": "0"}


@pytest.mark.parametrize(
    ("exchange", "server", "client"),
    [
        ({"status": 101}, (UNSET, None, None), (UNSET, None, None)),
        ({"status": 302}, (UNSET, None, None), (UNSET, None, None)),
        ({"status": 404}, (UNSET, None, None), (ERROR, "404", None)),
        ({"status": 503}, (ERROR, "503", None), (ERROR, "503", None)),
        ({"status": 200, "error": RESET, "side": BY_SERVER}, (ERROR, "connection_reset", "server"), (ERROR, "connection_reset", "server")),
        ({"status": 200, "error": CLOSED, "side": BY_CLIENT}, (UNSET, None, "client"), (ERROR, "connection_closed", "client")),
        ({"status": 0, "error": CLOSED, "side": BY_SERVER}, (ERROR, "connection_closed", "server"), (ERROR, "connection_closed", "server")),
        ({"status": 0, "error": RESET, "side": BY_CLIENT}, (UNSET, None, "client"), (ERROR, "connection_reset", "client")),
        ({"status": 404, "error": RESET, "side": BY_SERVER}, (ERROR, "connection_reset", "server"), (ERROR, "404", "server")),
        ({"status": 500, "error": RESET, "side": BY_CLIENT}, (ERROR, "500", "client"), (ERROR, "500", "client")),
    ],
)
def test_errors_are_each_sides_own(exchange: dict[str, Any], server: tuple[Any, ...], client: tuple[Any, ...]) -> None:
    """Status, `error.type` and who ended it, by the rules of each kind of span; metrics have the same `error.type`; no status is invented."""
    ran = run(make(exchange))

    for kind, expected, metric in ((SERVER, server, "http.server.request.duration"), (CLIENT, client, "http.client.request.duration")):
        span = ran.span(kind)
        assert (span["status"], span["attributes"].get("error.type"), span["attributes"].get(OWN + "closed_by")) == expected
        assert span["attributes"].get("http.response.status_code", 0) == exchange["status"]
        (point,) = [point for point in ran.points if point["metric"] == metric]
        assert point["attributes"].get("error.type") == expected[1]


def test_an_unanswered_exchange_claims_nothing_about_an_answer() -> None:
    """Without an answer there is neither its size nor its transfer; the wait lasts to the end."""
    ran = run(make({"status": 0, "response_start_ns": 0, "error": RESET, "side": BY_SERVER}))

    found = ran.attributes(SERVER)
    assert "http.response.body.size" not in found
    assert (found[OWN + "request.transfer_ns"], found[OWN + "response.wait_ns"], found[OWN + "response.transfer_ns"]) == (MS, 6 * MS, 0)


@pytest.mark.parametrize(
    ("start", "request_end", "first", "end"),
    [(0, 1, 3, 7), (0, 5, 3, 7), (0, 9, 3, 7), (0, 0, 0, 7), (0, 7, 0, 7), (0, 0, 0, 0), (0, 1, 0, 0)],
)
def test_the_three_parts_add_up_to_the_duration(start: int, request_end: int, first: int, end: int) -> None:
    """Also where the answer begins before the request has ended, and where parts were not seen, the parts are not negative and add up."""
    times = {"request_end_ns": request_end, "response_start_ns": first, "response_end_ns": end}
    ran = run(make({name: START_NS + value * MS if value else 0 for name, value in times.items()}))

    span, found = ran.span(SERVER), ran.attributes(SERVER)
    parts = [found[OWN + name] for name in ("request.transfer_ns", "response.wait_ns", "response.transfer_ns")]
    assert sum(parts) == span["end"] - span["start"]
    assert min(parts) >= 0
    if request_end > first > 0:
        assert parts[1] == 0


@pytest.mark.parametrize(
    ("exchange", "expected"),
    [
        ({"host": "shop.example"}, ("shop.example", 80)),
        ({"host": "shop.example:81"}, ("shop.example", 81)),
        ({"host": "[2001:db8::7]:81"}, ("2001:db8::7", 81)),
        ({"host": "[2001:db8::7]"}, ("2001:db8::7", 80)),
        ({"host": "192.0.2.1:99"}, ("192.0.2.1", 99)),
        ({"host": "shop.example:"}, ("shop.example", 80)),
        ({"host": ""}, ("10.0.0.2", 8080)),
        ({"host": "", "server": "2001:db8::2"}, ("2001:db8::2", 8080)),
        ({"host": "a b"}, ("10.0.0.2", 8080)),
        ({"host": "shop:99999"}, ("10.0.0.2", 8080)),
        ({"host": "shop:http"}, ("10.0.0.2", 8080)),
        ({"host": "[::1"}, ("10.0.0.2", 8080)),
        ({"host": "h" * 65}, ("10.0.0.2", 8080)),
        ({"target": "http://proxied.example/x", "host": "other"}, ("proxied.example", 80)),
        ({"target": "HTTPS://user:secret@proxied.example", "host": "other"}, ("proxied.example", 443)),
        ({"target": "http://proxied.example:8?x", "host": "other"}, ("proxied.example", 8)),
        ({"method": "CONNECT", "target": "db.example:5432"}, ("db.example", 5432)),
        ({"method": "OPTIONS", "target": "*"}, ("shop.example", 8080)),
    ],
)
def test_the_server_is_the_one_that_the_request_names(exchange: dict[str, Any], expected: tuple[str, int]) -> None:
    """Host, or the authority of the target; what is missing, cut or no host at all is the connection's own address and port."""
    ran = run(make({"host": "shop.example:8080"} | exchange))

    for kind in (SERVER, CLIENT):
        found = ran.attributes(kind)
        assert (found["server.address"], found["server.port"]) == expected


@pytest.mark.parametrize(
    ("exchange", "path", "full"),
    [
        ({"target": "/"}, "/", "http://shop.example/"),
        ({"target": "/a?b?c"}, "/a", "http://shop.example/a"),
        ({"target": "/?"}, "/", "http://shop.example/"),
        ({"target": "http://u:p@h.example:81/p/q?r"}, "/p/q", "http://h.example:81/p/q"),
        ({"target": "https://h.example"}, "/", "https://h.example/"),
        ({"target": "http://h.example?q"}, "/", "http://h.example/"),
        ({"target": "*", "method": "OPTIONS"}, "*", "http://shop.example"),
        ({"target": "h.example:443", "method": "CONNECT"}, None, "//h.example:443"),
        ({"target": "/caf\u00e9"}, "/caf\u00e9", "http://shop.example/caf\u00e9"),
        ({"target": b"/\xff\xfe/x"}, "/\ufffd\ufffd/x", "http://shop.example/\ufffd\ufffd/x"),
        ({"target": b"/a\x00"}, "/a\ufffd", "http://shop.example/a\ufffd"),
        ({"target": "/" + "x" * 255}, "/" + "x" * 255, "http://shop.example/" + "x" * 255),
        ({"target": "/" + "x" * 300}, "/" + "x" * 255, "http://shop.example/" + "x" * 255),
        ({"host": "", "target": "/a"}, "/a", "http://10.0.0.2:8080/a"),
        ({"host": "", "server": "2001:db8::2", "server_port": 80, "target": "/a"}, "/a", "http://[2001:db8::2]/a"),
    ],
)
def test_urls_have_no_query_and_no_credentials(exchange: dict[str, Any], path: str | None, full: str) -> None:
    """Every form of target gives the path and the URL that the conventions ask for, always valid text."""
    ran = run(make({"host": "shop.example"} | exchange))

    assert ran.attributes(SERVER).get("url.path") == path
    assert ran.attributes(CLIENT)["url.full"] == full
    assert "url.query" not in ran.attributes(SERVER)


def test_queries_are_exported_where_asked_for_and_masked() -> None:
    """With queries on, secrets are masked by name (any case, percent-encoded, globs), in both attributes; no empty query appears."""
    exchanges = [
        {"target": "/a?id=7&Token=abc&x=token", "request_seq": 1},
        {"target": "/b", "request_seq": 2},
        {"target": "/c?to%6Ben=abc;X-Amz-Signature=1&sig=&flag", "request_seq": 3},
    ]

    ran = run(make(*exchanges), options=HttpOptions(query=True))

    servers = [span["attributes"] for span in ran.spans if span["kind"] == SERVER]
    clients = [span["attributes"]["url.full"] for span in ran.spans if span["kind"] == CLIENT]
    first, third = "id=7&Token=REDACTED&x=token", "to%6Ben=REDACTED;X-Amz-Signature=REDACTED&sig=REDACTED&flag"
    assert sorted(str(found.get("url.query")) for found in servers) == sorted(["None", first, third])
    host = "http://shop.example:8080"
    assert sorted(clients) == [f"{host}/a?{first}", f"{host}/b", f"{host}/c?{third}"]


@pytest.mark.parametrize(
    ("target", "scheme", "server", "path", "full"),
    [
        ("ftp://user:secret@foo.example/x", "ftp", ("foo.example", 21), "/x", "ftp://foo.example/x"),
        ("ws://foo.example/x?y", "ws", ("foo.example", 80), "/x", "ws://foo.example/x"),
        ("WSS://foo.example", "wss", ("foo.example", 443), "/", "wss://foo.example/"),
        ("HTTPS://user:secret@foo.example:8443/x", "https", ("foo.example", 8443), "/x", "https://foo.example:8443/x"),
        ("coap+tcp://user@foo.example:5683/x", "coap+tcp", ("foo.example", 5683), "/x", "coap+tcp://foo.example:5683/x"),
        ("gopher://user:secret@foo.example/x", "gopher", ("foo.example", None), "/x", "gopher://foo.example/x"),
        ("x" * 200 + "://user:secret@foo.example/x", "x" * 200, ("foo.example", None), "/x", "x" * 200 + "://foo.example/x"),
        ("http://user:" + "7" * 300 + "@foo.example/x", "http", ("10.0.0.2", 8080), "/", "http://10.0.0.2:8080/"),
        ("http://" + "a" * 249, "http", ("10.0.0.2", 8080), "/", "http://10.0.0.2:8080/"),
        ("1st://foo.example/x", "http", ("proxy", 80), "1st://foo.example/x", "http://proxy1st://foo.example/x"),
        ("mailto:a", "http", ("proxy", 80), "mailto:a", "http://proxymailto:a"),
    ],
)
def test_an_absolute_target_of_any_scheme_names_scheme_and_server(
    target: str, scheme: str, server: tuple[str, int | None], path: str, full: str
) -> None:
    """Whatever the scheme, its authority is the server, credentials are told nowhere, and a port is told where one is named or usual."""
    ran = run(make({"host": "proxy", "target": target}))

    for kind in (SERVER, CLIENT):
        found = ran.attributes(kind)
        assert (found["server.address"], found.get("server.port")) == server
    assert (ran.attributes(SERVER)["url.scheme"], ran.attributes(SERVER)["url.path"]) == (scheme, path)
    assert ran.attributes(CLIENT)["url.full"] == full
    assert "secret" not in repr(ran.spans) + repr(ran.points)


def test_schemes_that_nobody_knows_are_one_in_metrics() -> None:
    """Spans tell each scheme, metrics those that are usual: a client that invents some makes no series of them."""
    targets = ["/", "ws://a/", "ws://b/", *(f"x{number}://a/" for number in range(5))]
    ran = run(make(*({"target": target} for target in targets)))

    counts = {
        point["attributes"]["url.scheme"]: point["point"].count for point in ran.points if point["metric"] == "http.server.request.duration"
    }
    assert counts == {"http": 1, "ws": 2, "_OTHER": 5}
    schemes = [span["attributes"]["url.scheme"] for span in ran.spans if span["kind"] == SERVER]
    assert schemes == ["http", "ws", "ws", "x0", "x1", "x2", "x3", "x4"]


SECRET = (
    "refresh_token", "id_token", "auth_token", "session_token", "private_token", "csrf_token", "access-token", "accessToken", "client_secret",
    "new_password", "pwd", "passwd", "user%5Bpassword%5D", "user[password]", "jwt", "api-key", "api_key", "apiKey", "X-API-Key", "sas_sig", "sig",
    "Signature", "auth", "authorization", "code", "key", "AWSAccessKeyId", "X-Amz-Credential", "X-Goog-Date", "secret", "p%61ss",
)  # fmt: skip
PLAIN = ("id", "q", "author", "page", "design", "passenger", "keyword", "country_code", "monkey", "session", "signal")


def test_usual_names_of_secrets_are_masked() -> None:
    """Tokens, passwords, keys and signatures by the names that they usually have, in any spelling; names that only look like them are shown."""
    targets = [f"/?{name}=v" for name in SECRET + PLAIN]

    ran = run(make(*({"target": target} for target in targets)), options=HttpOptions(query=True))

    shown = [span["attributes"]["url.query"] for span in ran.spans if span["kind"] == SERVER]
    assert shown == [f"{name}=REDACTED" for name in SECRET] + [f"{name}=v" for name in PLAIN]


def test_names_of_parameters_are_remembered_and_forgotten() -> None:
    """A name is judged alike however often it comes, and whatever number of others came between."""
    masks = Masks(("*token*",))

    for _ in range(2):
        assert masks.redact([f"token{number}=1&x{number}=2" for number in range(5000)])[4321] == "token4321=REDACTED&x4321=2"
        assert masks.redact(["token1=1&x1=2"]) == ["token1=REDACTED&x1=2"]


@pytest.mark.parametrize(
    ("method", "name"), [("PATCH", "PATCH"), ("QUERY", "QUERY"), ("BREW", "HTTP"), ("get", "HTTP"), ("M" * 20, "HTTP")]
)
def test_unknown_methods_are_other(method: str, name: str) -> None:
    """A method outside the conventions' list is `_OTHER`, its own text is beside it, and it never is in a name or a metric."""
    ran = run(make({"method": method}))

    span = ran.span(SERVER)
    known = name == method
    assert span["name"] == name
    assert span["attributes"]["http.request.method"] == (method if known else "_OTHER")
    assert span["attributes"].get("http.request.method_original") == (None if known else method)
    assert ran.points[0]["attributes"]["http.request.method"] == (method if known else "_OTHER")


KNOWN = ("PROPFIND", "get", "POST", "GETS", "X" * 400, "get", "_OTHER")


@pytest.mark.parametrize(
    ("method", "is_known"),
    [
        ("PROPFIND", True),
        ("get", True),
        ("POST", True),
        ("GETS", True),
        ("GET", False),
        ("QUERY", False),
        ("propfind", False),
        ("PROP", False),
    ],
)
def test_the_list_of_known_methods_can_be_replaced(method: str, is_known: bool) -> None:
    """Methods of the list, and no others, are told by name in spans and metrics, with the case that they have."""
    options = HttpOptions(methods=KNOWN, active=True)

    ran = run(make({"method": method}), options=options, begun=make({"method": method, "status": 0, "response_start_ns": 0}))

    assert ran.span(SERVER)["name"] == (method if is_known else "HTTP")
    for kind in (SERVER, CLIENT):
        found = ran.attributes(kind)
        assert found["http.request.method"] == (method if is_known else "_OTHER")
        assert found.get("http.request.method_original") == (None if is_known else method)
    assert {point["attributes"]["http.request.method"] for point in ran.points} == {method if is_known else "_OTHER"}
    assert {point["metric"] for point in ran.points} >= {"http.server.request.duration", "http.server.active_requests"}


def test_methods_of_one_batch_are_told_each() -> None:
    """Known ones, unknown ones and those of the default list, beside each other."""
    methods = ("POST", "PROPFIND", "BREW", "GET", "PROPFIND", "get", "M" * 23)

    ran = run(make(*({"method": method} for method in methods)), options=HttpOptions(methods=KNOWN))

    names = [span["name"] for span in ran.spans if span["kind"] == SERVER]
    assert names == ["POST", "PROPFIND", "HTTP", "HTTP", "PROPFIND", "get", "HTTP"]


def test_what_a_method_means_does_not_depend_on_its_name() -> None:
    """CONNECT is one, and has the server that its target names, where it is not on the list of methods either."""
    ran = run(make({"method": "CONNECT", "target": "db.example:5432"}), options=HttpOptions(methods=("GET",)))

    found = ran.attributes(SERVER)
    assert (found["http.request.method"], found["http.request.method_original"]) == ("_OTHER", "CONNECT")
    assert (found["server.address"], found["server.port"]) == ("db.example", 5432)


def test_routes_name_spans_and_metrics_of_both_sides() -> None:
    """A configured pattern is `http.route` of the server and `url.template` of the client, in the span's name and in the metrics."""
    ran = run(make({"target": "/users/7?x"}), routes=RouteOptions((RoutePattern("/users/{id}"),)))

    for kind, name in ((SERVER, "http.route"), (CLIENT, "url.template")):
        assert ran.span(kind)["name"] == "GET /users/{id}"
        assert ran.attributes(kind)[name] == "/users/{id}"
    assert {point["attributes"].get("http.route") or point["attributes"].get("url.template") for point in ran.points} == {"/users/{id}"}


def test_flags_are_an_array_of_names() -> None:
    """What is uncertain is said by name; a span without flags has no such attribute."""
    ran = run(make({"flags": 0b101111}))

    assert ran.attributes()[OWN + "flags"] == ["target_cut", "uncertain_end", "uncertain_size", "resynchronised", "interim"]


@pytest.mark.parametrize(
    ("headers", "slots", "client"),
    [
        (("x-forwarded-for",), ("203.0.113.9, 10.1.1.1",), "203.0.113.9"),
        (("x-forwarded-for",), ("203.0.113.9:5555",), "203.0.113.9"),
        (("forwarded",), ('for="[2001:db8::9]:47";proto=http, for=10.0.0.9',), "2001:db8::9"),
        (("forwarded", "x-forwarded-for"), ("proto=http;For=203.0.113.7", "203.0.113.9"), "203.0.113.7"),
        (("x-request-id", "x-forwarded-for"), ("abc", ""), "10.0.0.1"),
    ],
)
def test_configured_headers_are_attributes_and_tell_the_client(headers: tuple[str, ...], slots: tuple[str, ...], client: str) -> None:
    """Header slots become `http.request.header.*` arrays; forwarding headers give `client.address`, the wire's peer stays."""
    ran = run(make({"slots": slots}, slots=len(slots)), options=HttpOptions(headers=headers))

    found = ran.attributes(SERVER)
    assert found["client.address"] == client
    assert found["network.peer.address"] == "10.0.0.1"
    for name, value in zip(headers, slots, strict=True):
        assert found.get(f"http.request.header.{name}") == ([value] if value else None)


LONG = "proto=https;host=" + "a" * 25 + ".example;for="


@pytest.mark.parametrize(
    ("headers", "slots", "client"),
    [
        (("forwarded",), (LONG + "192.0.2.43",), "10.0.0.1"),
        (("forwarded", "x-forwarded-for"), (LONG + "192.0.2.43", "203.0.113.9, " + "9" * 90), "203.0.113.9"),
        (("forwarded",), (LONG + '"[2001:db8::1]"',), "10.0.0.1"),
        (("forwarded",), ("for=192.0.2.43;host=" + "a" * 90,), "192.0.2.43"),
        (("forwarded",), (LONG + "192.0.2.4",), "192.0.2.4"),
        (("x-forwarded-for",), ("9" * 90,), "10.0.0.1"),
        (("x-forwarded-for",), (" " * 60 + "192.0.2.43",), "10.0.0.1"),
        (("x-forwarded-for",), ("192.0.2.43, " + "9" * 300,), "192.0.2.43"),
        (("x-forwarded-for",), ("9" * 64,), "9" * 64),
    ],
)
def test_a_header_that_was_cut_gives_no_part_of_an_address(headers: tuple[str, ...], slots: tuple[str, ...], client: str) -> None:
    """Where 64 bytes end inside the address of the client, it is told as without the header; what stands whole before the cut counts."""
    ran = run(make({"slots": slots}, slots=len(slots)), options=HttpOptions(headers=headers))

    assert ran.attributes(SERVER)["client.address"] == client


def test_whether_a_header_was_cut_is_told_row_by_row() -> None:
    """Of two values that begin with the same 64 bytes the whole one gives the address, the cut one does not."""
    whole, cut = LONG + "192.0.2.4", LONG + "192.0.2.43"
    ran = run(make({"slots": (whole,)}, {"slots": (cut,)}, slots=1), options=HttpOptions(headers=("forwarded",)))

    clients = [span["attributes"]["client.address"] for span in ran.spans if span["kind"] == SERVER]
    assert clients == ["192.0.2.4", "10.0.0.1"]


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ('host="a;for=6.6.6.6";for=1.2.3.4', "1.2.3.4"),
        (r'host="a\";for=6.6.6.6";for=1.2.3.4', "1.2.3.4"),
        (r'for="1.2.3.\4"', "1.2.3.4"),
        ('secret=";for=6.6.6.6', "10.0.0.1"),
        ('for="6.6.6.6', "10.0.0.1"),
        ('"for=6.6.6.6";for=1.2.3.4', "1.2.3.4"),
        ("by=for;For = 1.2.3.4", "1.2.3.4"),
        ("notfor=6.6.6.6, for=1.2.3.4", "1.2.3.4"),
        ("for=,for=1.2.3.4", "1.2.3.4"),
    ],
)
def test_what_is_quoted_in_forwarded_is_text(value: str, client: str) -> None:
    """A quoted string is stepped over as a whole, escapes in it are undone, and one that does not end names nobody."""
    ran = run(make({"slots": (value,)}, slots=1), options=HttpOptions(headers=("forwarded",)))

    assert ran.attributes(SERVER)["client.address"] == client


def test_ignored_agents_make_no_spans_but_count() -> None:
    """A health probe's User-Agent gives metrics and no span, and is counted."""
    ran = run(make({"agent": "kube-probe/1.30"}, {"agent": "curl"}), options=HttpOptions(ignored_agents=("kube-probe/*",)))

    assert [span["attributes"]["user_agent.original"] for span in ran.spans] == ["curl", "curl"]
    assert ran.line.counts.ignored == 2
    assert sum(point["point"].count for point in ran.points) == 4


def test_workloads_lend_their_resource_and_name_the_peer() -> None:
    """Each span has its own workload's Resource, and the other's name in the attributes of service graphs; SERVER hangs from CLIENT."""
    server = Workload({"service.name": "shop", "service.namespace": "prod", "k8s.pod.uid": "1"}, "shop.prod")
    client = Workload({"service.name": "web", "k8s.pod.uid": "2"})
    ran = run(make({"host": "10.0.0.2:8080"}), identity=Known(server, client, {address("10.0.0.2"): "shop.prod"}))

    answered, asked = ran.span(SERVER), ran.span(CLIENT)
    assert (answered["resource"]["k8s.pod.uid"], asked["resource"]["k8s.pod.uid"]) == ("1", "2")
    assert (answered["attributes"]["service.peer.name"], answered["attributes"]["peer.service"]) == ("web", "web")
    assert (asked["attributes"]["service.peer.name"], asked["attributes"]["service.peer.namespace"]) == ("shop", "prod")
    assert answered["trace_id"] == asked["trace_id"]
    assert (answered["parent"], asked["parent"]) == (asked["span_id"], b"")
    assert asked["attributes"]["server.address"] == "shop.prod"
    assert asked["attributes"]["url.full"] == "http://10.0.0.2:8080/"
    (point,) = [point for point in ran.points if point["metric"] == "http.client.request.duration"]
    assert (point["attributes"]["server.address"], point["resource"]["k8s.pod.uid"]) == ("shop.prod", "2")


def test_a_traceparent_is_the_parent_of_the_chain() -> None:
    """Its trace id is taken, CLIENT hangs from it, SERVER from CLIENT; its tracestate is passed on; an unsampled one is nobody's parent."""
    given = {"trace_id": b"T" * 16, "parent_id": b"P" * 8, "tracestate": "vendor=1"}
    ran = run(make({**given, "trace_flags": 1}))

    answered, asked = ran.span(SERVER), ran.span(CLIENT)
    assert answered["trace_id"] == asked["trace_id"] == b"T" * 16
    assert (asked["parent"], answered["parent"]) == (b"P" * 8, asked["span_id"])
    assert answered["trace_state"] == asked["trace_state"] == "vendor=1"
    assert answered["flags"] == 0x300
    dropped = run(make({**given, "trace_flags": 0}), sampling=SamplingOptions("parentbased_always_on"))
    assert not dropped.spans
    assert run(make({**given, "trace_flags": 0})).span(CLIENT)["parent"] == b""


def test_a_server_span_alone_hangs_from_the_traceparent() -> None:
    """Where nobody makes the CLIENT span, SERVER hangs from the traceparent's span, and from nothing without one."""
    alone = Known(report_client=False)
    given = {"trace_id": b"T" * 16, "parent_id": b"P" * 8, "trace_flags": 1}

    assert run(make(given), identity=alone).span()["parent"] == b"P" * 8
    assert run(make({}), identity=alone).span()["parent"] == b""
    assert run(make({}), identity=Known(report_client=False, joined=True)).span()["parent"] == run(make({})).span(CLIENT)["span_id"]


def test_ids_do_not_depend_on_addresses_or_tap() -> None:
    """The same TCP numbers and start line give the same ids through any NAT and at any tap; other numbers give others."""
    here = run(make({"request_seq": 5, "response_seq": 9})).span()
    there = run(
        make({"request_seq": 5, "response_seq": 9, "client": "192.0.2.1", "server": "192.0.2.2", "client_port": 1, "tap": 3})
    ).span()
    other = run(make({"request_seq": 5, "response_seq": 10})).span()

    assert (here["trace_id"], here["span_id"]) == (there["trace_id"], there["span_id"])
    assert here["trace_id"] != other["trace_id"]


def test_silent_and_uncounted_rows_are_left_out_and_counted() -> None:
    """Identity can keep a row out of spans, or out of metrics, each by itself."""
    silent, uncounted = run(make({}), identity=Known(silent=True)), run(make({}), identity=Known(uncounted=True))

    assert (len(silent.spans), len(silent.points), silent.line.counts.silenced) == (0, 2, 2)
    assert (len(uncounted.spans), len(uncounted.points)) == (2, 0)
