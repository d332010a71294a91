"""Paths become routes: by the user's patterns, or by templates where asked for; bounded, and never a raw path with a variable in it."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest

from otel_ebpf_receiver.telemetry import template
from otel_ebpf_receiver.telemetry.columns import I64, U8, U64
from otel_ebpf_receiver.telemetry.routes import OVERFLOW, Paths, RouteOptions, RoutePattern, Routes, Skeletons
from otel_ebpf_receiver.telemetry.workload import Workload

WORKLOADS = (Workload({"service.name": "shop"}), Workload({"service.name": "billing"}))


def matrix(paths: list[str]) -> tuple[U8, I64]:
    """Paths as the columns that routes are looked up by."""
    raw = [path.encode() for path in paths]
    width = max(8, (max(map(len, raw)) + 7) // 8 * 8)
    return np.array(raw, f"S{width}").view(np.uint8).reshape(len(raw), width), np.array(list(map(len, raw)))


def resolve(routes: Routes, paths: list[str], which: int = 0, *, cut: bool = False) -> list[str]:
    """The routes of some paths of one service."""
    rows, lengths = matrix(paths)
    keys = routes.resolve(WORKLOADS, np.full(len(paths), which, np.int32), Paths(rows, lengths, np.full(len(paths), cut)))
    return [routes.text(int(key)) for key in keys]


PATTERNS = RouteOptions(
    (
        RoutePattern("/users/{id}"),
        RoutePattern("/users/{id}/orders/{order}"),
        RoutePattern("/static/**"),
        RoutePattern("/*/health"),
        RoutePattern("/files/{name}.json"),
        RoutePattern("/bills/{id}", "bill*"),
    )
)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/users/7", "/users/{id}"),
        ("/users/7/orders/abc", "/users/{id}/orders/{order}"),
        ("/users/", ""),
        ("/users/7/", ""),
        ("/static", "/static/**"),
        ("/static/a/b.css", "/static/**"),
        ("/statics", ""),
        ("/v1/health", "/*/health"),
        ("/a/b/health", ""),
        ("/files/a.json", "/files/{name}.json"),
        ("/files/a.xml", ""),
        ("/bills/1", ""),
    ],
)
def test_the_first_pattern_that_matches_wins(path: str, route: str) -> None:
    """`{name}` and `*` stay inside a segment, `**` takes any end; what matches nothing has no route."""
    assert resolve(Routes(PATTERNS), [path]) == [route]


def test_traffic_without_a_workload_has_the_hosts_routes() -> None:
    """A pattern of the service that the host is called by is its own; without that name it is nobody's."""
    options = RouteOptions((RoutePattern("/users/{id}", service="shop"),))

    assert resolve(Routes(options, host="shop"), ["/users/7"], -1) == ["/users/{id}"]
    assert resolve(Routes(options), ["/users/7"], -1) == [""]


def test_patterns_can_belong_to_services() -> None:
    """A pattern with a service glob counts for its services only, and the cache keeps services apart."""
    routes = Routes(PATTERNS)

    assert resolve(routes, ["/bills/1"], 1) == ["/bills/{id}"]
    assert resolve(routes, ["/bills/1"], 0) == [""]
    assert resolve(routes, ["/bills/1"], -1) == [""]


def test_a_cut_path_matches_only_what_takes_any_end() -> None:
    """Of a path whose end is unknown nothing about its end is claimed."""
    routes = Routes(PATTERNS)

    assert resolve(routes, ["/users/7", "/static/a"], cut=True) == ["", "/static/**"]
    assert resolve(Routes(RouteOptions(templating=True)), ["/a/1/halfasegme"], cut=True) == ["/a/{number}/**"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/api/v1/users", "/api/v1/users"),
        ("/users/12/orders/34", "/users/{number}/orders/{number}"),
        ("/d/2024-01-02/x", "/d/{number}/x"),
        ("/o/123e4567-e89b-12d3-a456-426614174000", "/o/{uuid}"),
        ("/c/9f86d081884c7d659a2feaa0c55ad015", "/c/{hash}"),
        ("/t/eyJhbGciOiJIUzI1NiJ9.x", "/t/{token}"),
        ("/t/the-quick-brown-fox-jumps-over-the-dog", "/t/{token}"),
        ("/cafebabe", "/cafebabe"),
        ("//7//", "//{number}//"),
    ],
)
def test_templates_replace_what_looks_variable(path: str, expected: str) -> None:
    """Numbers, UUIDs, hashes and long tokens become placeholders; words stay."""
    assert resolve(Routes(RouteOptions(templating=True)), [path]) == [expected]


def test_the_vectorised_shape_agrees_with_the_template_of_one_path() -> None:
    """Random paths have equal shapes exactly where they have equal templates."""
    random = np.random.default_rng(5)
    parts = [
        "",
        "a",
        "users",
        "7",
        "0123456789",
        "abcdef0123456789",
        "deadbeef",
        "A" * 33,
        "x1" * 8,
        "1.2",
        "%41b",
        "é",
        "123e4567-e89b-12d3-a456-426614174000",
    ]
    paths = ["/" + "/".join(random.choice(parts, random.integers(1, 6))) for _ in range(4000)]

    shapes = [row.tobytes() for row in template.shapes(*matrix(paths))]
    texts = [template.text(path.encode()) for path in paths]

    assert len(set(zip(shapes, texts, strict=True))) == len(set(shapes)) == len(set(texts))
    assert not any(re.search(r"/\d+(/|$)", text) for text in texts)


def test_paths_of_one_skeleton_have_one_template() -> None:
    """Where a skeleton tells enough, no two templates share it, whatever the query says; most paths with numbers are among those."""
    random = np.random.default_rng(6)
    parts = [
        "",
        "a",
        "users",
        "7",
        "0123",
        "98765",
        "v1",
        "1a",
        "1.2",
        "-",
        "\u00e9",
        "b" * 31,
        "b" * 32,
        "(" * 40,
        "0" * 40,
        "2024-01-02",
        "\xbf",
    ]
    paths = ["/" + "/".join(random.choice(parts, random.integers(1, 5))) for _ in range(6000)]
    queries = random.choice(["", "?", "?1", "?a=1&b=2x", "?a?1/2b"], len(paths)).tolist()

    texts, lengths = matrix([path + query for path, query in zip(paths, queries, strict=True)])
    skeletons, is_told = template.skeletons(texts)
    told = {((skeletons[row].tobytes(), lengths[row]), template.text(paths[row].encode())) for row in np.flatnonzero(is_told).tolist()}

    assert len(told) == len({skeleton for skeleton, _ in told}) > 100
    assert template.skeletons(matrix(["/users/12/orders/34", "/v1/a", "/a?v1=x1", "/a1?2"])[0])[1].tolist() == [True, False, True, False]


def test_the_key_of_a_route_can_still_be_read_when_the_tables_were_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was resolved before the tables start afresh has its text afterwards, and the same key again."""
    monkeypatch.setattr("otel_ebpf_receiver.telemetry.routes._TEMPLATES_MAX", 2)
    routes = Routes(RouteOptions(templating=True))
    rows, lengths = matrix(["/a/1", "/b/2", "/c/3"])
    paths, which = Paths(rows, lengths, np.zeros(3, bool)), np.zeros(3, np.int32)

    first = routes.resolve(WORKLOADS, which, paths)
    again = routes.resolve(WORKLOADS, which[:1], paths.of(np.array([0])))

    assert [routes.text(int(key)) for key in first] == ["/a/{number}", "/b/{number}", "/c/{number}"]
    assert again[0] == first[0]


class Lines:
    """Lines that are nothing but paths; remembers which were read."""

    def __init__(self, paths: list[str]) -> None:
        rows, lengths = matrix(paths)
        self._paths = Paths(rows, lengths, np.zeros(len(paths), bool))
        self.read = list[int]()

    @property
    def keys(self) -> U64:
        return self._paths.keys

    def paths(self, rows: npt.NDArray[np.intp]) -> Paths:
        self.read += rows.tolist()
        return self._paths.of(rows)

    def skeletons(self, rows: npt.NDArray[np.intp]) -> Skeletons:
        return self._paths.of(rows).skeletons()


def test_a_route_met_before_is_recalled_by_its_line() -> None:
    """Paths are read only for lines not met lately, and whoever is served by another service does not get its routes."""
    routes, lines = Routes(PATTERNS), Lines(["/bills/1", "/users/7", "/bills/1"])

    first = routes.recall(WORKLOADS, np.array([1, 1, 0], np.int32), lines)
    again = routes.recall(WORKLOADS, np.array([1, 1, 1], np.int32), lines)

    assert lines.read == [0, 1, 2]
    assert [routes.text(int(key)) for key in first] == ["/bills/{id}", "/users/{id}", ""]
    assert [routes.text(int(key)) for key in again] == ["/bills/{id}", "/users/{id}", "/bills/{id}"]


def test_a_template_is_known_by_the_skeleton_of_the_line() -> None:
    """A path whose skeleton was met is not read, whatever its numbers; patterns, which may ask for certain numbers, are matched by the path."""
    routes, met, new = Routes(RouteOptions(templating=True)), Lines(["/a/1", "*", "/v1/2"]), Lines(["/a/2", "*", "/v2/2", "/a/20"])

    routes.recall(WORKLOADS, np.zeros(3, np.int32), met)
    found = routes.recall(WORKLOADS, np.zeros(4, np.int32), new)

    assert [routes.text(int(key)) for key in found] == ["/a/{number}", "", "/v2/{number}", "/a/{number}"]
    assert (met.read, new.read) == ([0, 1, 2], [2, 3])
    patterns = Routes(RouteOptions((RoutePattern("/a/1"),), templating=True))
    found = patterns.recall(WORKLOADS, np.zeros(4, np.int32), Lines(["/a/1", "/a/2", "*", "/a/1"]))
    assert [patterns.text(int(key)) for key in found] == ["/a/1", "/a/{number}", "", "/a/1"]


def test_templates_are_capped_per_service() -> None:
    """Beyond the limit every new template is the overflow value; those already there stay, and another service has its own."""
    routes = Routes(RouteOptions(templating=True, limit=3))

    found = resolve(routes, [f"/word{chr(97 + number)}" for number in range(10)])

    assert sum(route != OVERFLOW for route in found) == 3
    assert routes.overflowed == 7
    assert resolve(routes, ["/other/1"], 1) == ["/other/{number}"]
    assert resolve(routes, [route for route in found if route != OVERFLOW]) == [route for route in found if route != OVERFLOW]


def test_without_patterns_and_templating_there_is_no_route() -> None:
    """By default no path has a route."""
    assert Routes(RouteOptions()).is_off
