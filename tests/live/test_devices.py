"""One exchange on several watched devices is told once: bridges, masquerade, strangers that get flooded frames, the agent's own exports."""

from __future__ import annotations

import subprocess

import pytest

from tests.agent.process import curl, http_server
from tests.capture.namespaces import Namespace, join, namespace
from tests.live.links import bridge, never_learn, tunnel
from tests.live.taps import PORT, answering
from tests.live.watched import CLIENT, DURATION, SERVER, Told, watching

URL = f"http://10.79.0.2:{PORT}"


def paths(told: Told) -> list[str]:
    """Paths of the console's lines, sorted."""
    return sorted(line["path"] for line in told.lines)


def test_a_call_across_a_bridge_is_one_server_span_and_one_count() -> None:
    """Two pairs and the bridge show it; without names for anybody there is one line, one SERVER span and one count, and no CLIENT kind."""
    with namespace() as host, namespace() as asker, namespace() as server:
        bridge(host, [asker, server])
        with http_server(server.command()), watching(host) as watched:
            for number in range(3):
                assert curl(asker.command(), f"{URL}/across{number}") == "404"
            curl(host.command(), f"{URL}/down")
            told = watched.finish()

    assert paths(told) == ["/across0", "/across1", "/across2", "/down"]
    assert sorted((span.path, span.kind) for span in told.spans) == [(path, SERVER) for path in paths(told)]
    assert {name: told.counted(name) for name in told.counts if name.startswith("http.")} == {DURATION: 4}
    assert told.kernel["http_answered"] == 8  # each at two pairs, or at a pair and the bridge


def test_a_call_between_named_workloads_is_both_kinds() -> None:
    """Where both sides have a name each kind is there once: one CLIENT and one SERVER span and a count of each."""
    services = '[{"name": "asker", "addresses": ["10.79.0.1"]}, {"name": "answerer", "addresses": ["10.79.0.2"]}]'
    with namespace() as host, namespace() as asker, namespace() as server:
        bridge(host, [asker, server])
        with http_server(server.command()), watching(host, env={"OTEL_EBPF_RECEIVER_SERVICES": services}) as watched:
            curl(asker.command(), f"{URL}/across")
            told = watched.finish()

    assert sorted(span.kind for span in told.spans) == [SERVER, CLIENT]
    assert {name: told.counted(name) for name in told.counts if name.startswith("http.")} == {
        DURATION: 1,
        "http.client.request.duration": 1,
    }


def test_masquerade_changes_nothing() -> None:
    """A pod's call that leaves with the node's address is one line, one span and one count, though two devices show other addresses."""
    with namespace() as pod, namespace() as node, namespace() as outside:
        join(node, pod, names=("pod0", "eth0"), net="10.77.0")
        join(node, outside, names=("up0", "eth0"), net="10.80.0")
        pod.ip("route", "add", "default", "via", "10.77.0.1")
        subprocess.run(node.command("sysctl", "-qw", "net.ipv4.ip_forward=1"), check=True)
        rules = "table ip t { chain post { type nat hook postrouting priority 100; oifname up0 masquerade; }; }"
        subprocess.run(node.command("nft", "-f", "-"), input=rules, text=True, check=True)
        with http_server(outside.command()), watching(node) as watched:
            for _ in range(3):
                curl(pod.command(), "http://10.80.0.2:8080/out")
            told = watched.finish()

    assert paths(told) == ["/out"] * 3
    assert [span.kind for span in told.spans] == [SERVER] * 3
    assert told.counted() == 3
    assert told.kernel["http_answered"] == 6


def test_a_stranger_reports_nothing() -> None:
    """A port that gets flooded frames of others, one direction only, gives no record; it is counted as one-sided."""
    with namespace() as host, namespace() as asker, namespace() as server, namespace() as stranger:
        bridge(host, [asker, server, stranger])
        never_learn(host, "p2", server)
        seen = _received(stranger)
        with http_server(server.command()), watching(host, "--interface", "p3") as watched:
            for _ in range(3):
                assert curl(asker.command(), f"{URL}/flooded") == "404"
            flooded = _received(stranger) - seen
            told = watched.finish()

    assert flooded >= 9  # a SYN, a request and a FIN of each at least
    assert told.lines == []
    assert told.spans == []
    assert told.counted() == 0
    assert told.kernel["flows_one_sided"] == 3


def _received(here: Namespace) -> int:
    with here.inside(), open("/proc/thread-self/net/dev") as lines:
        return int(next(line for line in lines if "eth0:" in line).split(":")[1].split()[1])


def test_a_stranger_beside_those_who_are_meant() -> None:
    """With every device watched, flooded frames change nothing: one line an exchange, from a tap that saw both directions."""
    with namespace() as host, namespace() as asker, namespace() as server, namespace() as stranger:
        bridge(host, [asker, server, stranger])
        never_learn(host, "p2", server)
        with http_server(server.command()), watching(host) as watched:
            for _ in range(3):
                curl(asker.command(), f"{URL}/flooded")
            told = watched.finish()

    assert paths(told) == ["/flooded"] * 3
    assert told.counted() == 3
    assert told.kernel["flows_one_sided"] >= 3


def test_a_tun_device() -> None:
    """A device without link layer is watched like any other: a line, a span and a count for each exchange."""
    with tunnel() as (here, there), answering(there, "10.99.0.2"), watching(here) as watched:
        for _ in range(2):
            curl(here.command(), f"http://10.99.0.2:{PORT}/through")
        told = watched.finish()

    assert [(line["path"], line["status"], line["server"]) for line in told.lines] == [("/through", 200, f"10.99.0.2:{PORT}")] * 2
    assert len(told.at("/through")) == told.counted() == 2


def test_own_exports_are_left_out_by_connection() -> None:
    """While `lo` is watched the agent's own export is no exchange; another process's POST to the same receiver is."""
    often = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
    with namespace() as here, watching(here, "--interface", "lo", env=often) as watched:
        watched.receiver.wait_for(requests=3)
        foreign = curl(here.command(), f"{watched.receiver.endpoint}/v1/metrics", "-H", "Content-Type: application/x-protobuf", "-d", "")
        watched.wait_line("/v1/metrics")
        watched.receiver.wait_for(spans=1, requests=len(watched.receiver.requests) + 3)
        exports = len(watched.receiver.requests) - 1
        told = watched.finish()

    assert foreign == "200"
    assert exports >= 6
    assert [(line["method"], line["path"]) for line in told.lines] == [("POST", "/v1/metrics")]
    assert [span.path for span in told.spans] == ["/v1/metrics"]
    assert told.counted() == 1
    assert told.kernel["flows_ignored"] >= 1


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ({"INCLUDE": "10.79.0.2/32"}, ["/second"]),
        ({"EXCLUDE": "10.79.0.2/32"}, ["/third"]),
        ({"INCLUDE": "10.79.0.0/24", "EXCLUDE": "10.79.0.3"}, ["/second"]),
        ({"EXCLUDE": "10.79.0.2/31", "INCLUDE": "10.79.0.3/32"}, ["/third"]),
    ],
)
def test_addresses_of_the_configuration(which: dict[str, str], expected: list[str]) -> None:
    """Only what the narrowest network of an address allows is told; the rest costs a lookup and is counted."""
    environ = {f"OTEL_EBPF_RECEIVER_CAPTURE_ADDRESSES_{name}": networks for name, networks in which.items()}
    with namespace() as host, namespace() as asker, namespace() as second, namespace() as third:
        bridge(host, [asker, second, third])
        with http_server(second.command()), http_server(third.command()), watching(host, env=environ) as watched:
            curl(asker.command(), "http://10.79.0.2:8080/second")
            curl(asker.command(), "http://10.79.0.3:8080/third")
            told = watched.finish()

    assert paths(told) == expected
    assert [span.path for span in told.spans] == expected
    assert told.kernel["flows_unwatched"] == 2
    assert told.kernel["unwatched"] >= 4
