"""Exchanges over real links, seen by the agent as a user runs it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from tests.agent.process import agent, curl, http_server
from tests.capture.namespaces import join, namespace
from tests.live.links import bridge

JSON = {"OTEL_EBPF_RECEIVER_EXPORTERS_CONSOLE_FORMAT": "json"}


def exchanges(lines: Sequence[str]) -> list[dict[str, object]]:
    """What the console printed as JSON."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def settle(lines: Sequence[str], path: str) -> list[dict[str, object]]:
    """Exchanges with this path, when the agent has ended."""
    return [one for one in exchanges(lines) if one["path"] == path]


def test_an_exchange_is_a_line() -> None:
    """Method, path, status and both ends of a real request stand in one line, and it is there without any configuration."""
    with namespace() as here, namespace() as there:
        join(here, there)
        with http_server(there.command()), agent(prefix=here.command()) as running:
            running.ready()
            curl(here.command(), "http://10.77.0.2:8080/hello?secret=1")

            line = running.out.wait(lambda line: "/hello" in line)
            code = running.stop()

    assert "GET" in line
    assert "404" in line
    assert "10.77.0.2:8080" in line
    assert "secret" not in line
    assert code == 0


def test_every_exchange_is_counted_once() -> None:
    """Of a number of requests on kept and on new connections each gives exactly one exchange, also those just before SIGTERM."""
    with namespace() as here, namespace() as there:
        join(here, there)
        with http_server(there.command()), agent(prefix=here.command(), env=JSON) as running:
            running.ready()
            for _ in range(5):
                curl(here.command(), "http://10.77.0.2:8080/one")
            many = [f"http://10.77.0.2:8080/kept{number}" for number in range(20)]
            command = here.command("curl", "-sS", "-o", "/dev/null", *many)
            subprocess.run(command, check=True, capture_output=True, timeout=30)
            code = running.stop()
            found = exchanges(running.out.rest())

    assert code == 0
    assert sorted(str(one["path"]) for one in found) == sorted(["/one"] * 5 + [f"/kept{number}" for number in range(20)])
    assert {one["status"] for one in found} == {404}


def test_loopback_is_seen_once() -> None:
    """A frame on loopback leaves and arrives; it is one exchange."""
    with namespace() as here, http_server(here.command()), agent(prefix=here.command(), env=JSON) as running:
        running.ready()
        curl(here.command(), "http://127.0.0.1:8080/loop")
        running.stop()
        found = settle(running.out.rest(), "/loop")

    assert len(found) == 1


def test_a_link_that_comes_later_is_watched() -> None:
    """A pair made while the agent runs is watched without a restart, and a link that goes leaves the rest alone."""
    with namespace() as here, namespace() as there, namespace() as third:
        join(here, there)
        with http_server(there.command()), http_server(third.command()), agent(prefix=here.command(), env=JSON) as running:
            running.ready()
            join(here, third, names=("late0", "eth0"), net="10.78.0")
            curl(here.command(), "http://10.78.0.2:8080/late")
            running.out.wait(lambda line: "/late" in line)
            here.ip("link", "del", "late0")
            curl(here.command(), "http://10.77.0.2:8080/rest")
            running.out.wait(lambda line: "/rest" in line)
            running.stop()
            lines = running.out.rest()

    assert len(settle(lines, "/late")) == 1
    assert len(settle(lines, "/rest")) == 1


def test_copies_on_a_bridge_and_its_ports_are_one() -> None:
    """A call between two ports crosses both pairs and the bridge; a call from the host crosses bridge and pair. Each is one line."""
    with namespace() as host, namespace() as asker, namespace() as server:
        bridge(host, [asker, server])
        with http_server(server.command()), agent(prefix=host.command(), env=JSON) as running:
            running.ready()
            curl(asker.command(), "http://10.79.0.2:8080/across")
            curl(host.command(), "http://10.79.0.2:8080/down")
            running.stop()
            lines = running.out.rest()

    assert len(settle(lines, "/across")) == 1
    assert len(settle(lines, "/down")) == 1


def test_ports_of_a_bridge_are_enough() -> None:
    """With `bridge: NAME` only the ports are watched, no device is promiscuous, and nothing is missed."""
    with namespace() as host, namespace() as asker, namespace() as server:
        bridge(host, [asker, server])
        environ = {**JSON, "OTEL_EBPF_RECEIVER_CAPTURE_TAPS": "bridge: br0"}
        with http_server(server.command()), agent(prefix=host.command(), env=environ) as running:
            ready = running.ready()
            before = host.ip("-d", "link", "show", "br0")
            curl(asker.command(), "http://10.79.0.2:8080/across")
            running.stop()
            lines = running.out.rest()

    assert "p1, p2" in ready
    assert "br0" not in ready
    assert "promiscuity 0" in before
    assert len(settle(lines, "/across")) == 1


def test_masquerade_does_not_double() -> None:
    """A call that is masqueraded on its way shows with two client addresses on two devices and is one exchange."""
    with namespace() as pod, namespace() as node, namespace() as outside:
        join(node, pod, names=("pod0", "eth0"), net="10.77.0")
        join(node, outside, names=("up0", "eth0"), net="10.80.0")
        pod.ip("route", "add", "default", "via", "10.77.0.1")
        subprocess.run(node.command("sysctl", "-qw", "net.ipv4.ip_forward=1"), check=True)
        rules = (
            "add table ip t\nadd chain ip t post { type nat hook postrouting priority 100 ; }\nadd rule ip t post oifname up0 masquerade\n"
        )
        subprocess.run(node.command("nft", "-f", "-"), input=rules, text=True, check=True, capture_output=True)
        with http_server(outside.command()), agent(prefix=node.command(), env=JSON) as running:
            running.ready()
            code = curl(pod.command(), "http://10.80.0.2:8080/out")
            running.stop()
            found = settle(running.out.rest(), "/out")

    assert code == "404"
    assert len(found) == 1


def test_hash_transport_reports_the_same() -> None:
    """Records parked in a hash map reach the console too."""
    with namespace() as here, namespace() as there:
        join(here, there)
        with (
            http_server(there.command()),
            agent(prefix=here.command(), env={**JSON, "OTEL_EBPF_RECEIVER_CAPTURE_TRANSPORT": "hash"}) as running,
        ):
            running.ready()
            curl(here.command(), "http://10.77.0.2:8080/parked")
            running.stop()
            found = settle(running.out.rest(), "/parked")

    assert len(found) == 1


def test_only_watched_addresses_are_reported() -> None:
    """With addresses to include, everything else is silent."""
    with namespace() as here, namespace() as there:
        join(here, there)
        environ = {**JSON, "OTEL_EBPF_RECEIVER_CAPTURE_ADDRESSES_INCLUDE": "10.77.0.0/24"}
        with http_server(there.command()), http_server(here.command()), agent(prefix=here.command(), env=environ) as running:
            running.ready()
            curl(here.command(), "http://127.0.0.1:8080/unwatched")
            curl(here.command(), "http://10.77.0.2:8080/watched")
            running.stop()
            found = exchanges(running.out.rest())

    assert [one["path"] for one in found] == ["/watched"]
