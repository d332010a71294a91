"""Names from the configuration."""

from __future__ import annotations

from ipaddress import ip_network

import numpy as np

from otel_ebpf_receiver.config.schema import Service
from otel_ebpf_receiver.identity.static import Statics
from tests.identity.flows import addresses


def service(name: str, *networks: str, ports: tuple[int, ...] = (), namespace: str = "") -> Service:
    """A rule of the configuration."""
    return Service(name, namespace, tuple(ip_network(one) for one in networks), ports)


def server(statics: Statics, address: str, port: int) -> str:
    """The name of who listens there."""
    number = int(statics.name_servers(addresses(address), np.array([port]))[0])
    return str(statics.workloads[number].attributes["service.name"]) if number >= 0 else ""


def client(statics: Statics, address: str) -> str:
    """The name of who asks from there."""
    number = int(statics.name_clients(addresses(address))[0])
    return str(statics.workloads[number].attributes["service.name"]) if number >= 0 else ""


def test_addresses_and_ports_name_a_server() -> None:
    """A rule holds where both its addresses and its ports do; an absent one means any."""
    statics = Statics([service("db", "10.0.0.5/32", ports=(5432,)), service("web", ports=(80, 8080)), service("lan", "10.0.0.0/8")])

    assert [server(statics, "10.0.0.5", 5432), server(statics, "192.168.1.1", 80), server(statics, "10.9.9.9", 99)] == ["db", "web", "lan"]
    assert server(statics, "192.168.1.1", 99) == ""


def test_the_narrowest_network_decides_then_ports_then_the_order() -> None:
    """Of several rules that hold, the most specific one names."""
    statics = Statics(
        [
            service("wide", "10.0.0.0/8"),
            service("first", "10.1.0.0/16"),
            service("second", "10.1.0.0/16"),
            service("port", "10.1.0.0/16", ports=(80,)),
        ]
    )

    assert [server(statics, "10.1.0.1", 80), server(statics, "10.1.0.1", 81), server(statics, "10.2.0.1", 80)] == ["port", "first", "wide"]


def test_a_client_is_named_by_its_address_only_when_that_is_unambiguous() -> None:
    """Ports of rules say nothing about a client; two rules that differ only by ports name nobody."""
    statics = Statics(
        [
            service("web", "10.0.0.1/32", ports=(80,)),
            service("a", "10.0.0.2/32", ports=(80,)),
            service("b", "10.0.0.2/32", ports=(81,)),
            service("all", "10.0.0.3/32"),
            service("some", "10.0.0.3/32", ports=(80,)),
            service("any", ports=(99,)),
        ]
    )

    assert [client(statics, f"10.0.0.{last}") for last in (1, 2, 3, 4)] == ["web", "", "all", ""]


def test_an_ambiguous_client_is_not_saved_by_a_wider_rule() -> None:
    """The narrowest network decides, even that nobody is named."""
    statics = Statics([service("a", "10.0.0.2/32", ports=(80,)), service("b", "10.0.0.2/32", ports=(81,)), service("lan", "10.0.0.0/8")])

    assert client(statics, "10.0.0.2") == ""
    assert client(statics, "10.0.0.9") == "lan"


def test_rules_of_one_name_are_one_workload_with_the_hosts_attributes() -> None:
    """A service of two rules has one Resource: its own service.*, what the host has besides, an instance id that tells hosts apart."""
    host = {"host.name": "box", "service.name": "agent", "service.version": "1", "deployment.environment.name": "lab"}
    statics = Statics([service("web", "10.0.0.1/32", namespace="shop"), service("web", ports=(80,), namespace="shop")], host)

    assert [dict(one.attributes) for one in statics.workloads] == [
        {
            "host.name": "box",
            "deployment.environment.name": "lab",
            "service.name": "web",
            "service.namespace": "shop",
            "service.instance.id": "shop.web.box",
        }
    ]
    assert statics.workloads[0].address_name == "web.shop"
