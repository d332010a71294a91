"""Who had which address when."""

from __future__ import annotations

import ipaddress
import random

import numpy as np
import pytest

from otel_ebpf_receiver.identity.address import packed
from otel_ebpf_receiver.identity.networks import Networks
from otel_ebpf_receiver.identity.snapshot import SHARED, Certainty, NetworkClaim, Snapshot, Trait, empty
from tests.identity.flows import addresses, claim, table, times


def found(snapshot: Snapshot, address: str, at_s: float = 50.0, port: int | None = None) -> tuple[int, Certainty]:
    """Workload and certainty of one address."""
    ports = None if port is None else np.array([port], np.int64)
    answer = snapshot.find(addresses(address), times(at_s), ports)
    return int(answer.workload[0]), Certainty(int(answer.certainty[0]))


def test_nothing_is_known_to_an_empty_snapshot() -> None:
    """A snapshot without claims answers -1, in both IP versions."""
    snapshot = empty()

    assert found(snapshot, "10.0.0.1") == (-1, Certainty.UNKNOWN)
    assert found(snapshot, "::") == (-1, Certainty.UNKNOWN)


def test_both_ip_versions_are_found() -> None:
    """Addresses of both versions name their workload, and neighbours of theirs nobody."""
    snapshot = table([claim("10.0.0.1", 0), claim("2001:db8::1", 1)])

    assert [found(snapshot, one)[0] for one in ("10.0.0.1", "2001:db8::1", "10.0.0.2", "2001:db8::2", "::a00:1")] == [0, 1, -1, -1, -1]


@pytest.mark.parametrize(("at_s", "workload"), [(5, -1), (10, 0), (29.999, 0), (30, 1), (44, 1), (45, -1), (60, 2), (1e9, 2)])
def test_a_reused_address_is_whose_it_was_at_the_time(at_s: float, workload: int) -> None:
    """Three owners one after the other, with a gap: each time names its own."""
    snapshot = table([claim("10.0.0.1", 2, 60), claim("10.0.0.1", 0, 10, 30), claim("10.0.0.1", 1, 30, 45)])

    assert found(snapshot, "10.0.0.1", at_s)[0] == workload


def test_a_successor_that_was_started_early_begins_when_its_predecessor_ends() -> None:
    """A pod is started before it is given its address; until then the address is still the other's."""
    snapshot = table([claim("10.0.0.1", 0, 10, 100), claim("10.0.0.1", 1, 90)])

    assert [found(snapshot, "10.0.0.1", at)[0] for at in (89, 95, 99.9, 100)] == [0, 0, 0, 1]


def test_an_owner_that_is_not_known_to_have_ended_yields_to_the_next() -> None:
    """The end of the first was missed: the second has the address from its own start."""
    snapshot = table([claim("10.0.0.1", 0, 10), claim("10.0.0.1", 1, 90)])

    assert [found(snapshot, "10.0.0.1", at)[0] for at in (89, 90)] == [0, 1]


def test_an_older_pod_that_got_the_address_late_has_it_after_the_younger_one_ended() -> None:
    """Of two claims of which the elder is still open, the younger, ended one has its own interval."""
    snapshot = table([claim("10.0.0.1", 0, 50), claim("10.0.0.1", 1, 80, 100)])

    assert [found(snapshot, "10.0.0.1", at)[0] for at in (60, 90, 105)] == [0, 1, 0]


def test_an_ended_owner_is_believed_in_its_grace_until_another_has_the_address() -> None:
    """In the grace the last owner is named, but not surely; a new claim is sure."""
    alone = table([claim("10.0.0.1", 0, 10, 30, until_s=90)])
    followed = table([claim("10.0.0.1", 0, 10, 30, until_s=90), claim("10.0.0.1", 1, 40)])

    assert [found(alone, "10.0.0.1", at) for at in (29, 30, 89, 90)] == [
        (0, Certainty.EXACT),
        (0, Certainty.GRACE),
        (0, Certainty.GRACE),
        (-1, Certainty.UNKNOWN),
    ]
    assert [found(followed, "10.0.0.1", at) for at in (35, 41)] == [(0, Certainty.GRACE), (1, Certainty.EXACT)]


def test_of_claims_that_start_together_the_later_row_wins() -> None:
    """What is known better is given last."""
    snapshot = table([claim("10.0.0.1", 0), claim("10.0.0.1", 1)])

    assert found(snapshot, "10.0.0.1")[0] == 1


def test_a_port_names_the_container() -> None:
    """Of a pod with several containers the one that declares the port; unknown and ambiguous ports name the pod."""
    snapshot = table([claim("10.0.0.1", 0, group=7)], ports=[(7, 80, 1), (7, 81, 2), (7, 90, 1), (7, 90, 2)])

    assert [found(snapshot, "10.0.0.1", port=port)[0] for port in (80, 81, 82, 90)] == [1, 2, 0, 0]
    assert found(snapshot, "10.0.0.1")[0] == 0


def test_a_nodes_address_has_its_own_ports_and_the_shared_ones() -> None:
    """A host-network pod by its declared port, a Service by its node port, everything else the node; pods have no node ports."""
    traits = [Trait.NODE, Trait.SELECTED, Trait.SELECTED, Trait.SELECTED]
    snapshot = table([claim("192.168.0.1", 0, group=8), claim("10.0.0.1", 3, group=9)], traits, [(8, 9100, 1), (SHARED, 30080, 2)])

    assert [found(snapshot, "192.168.0.1", port=port)[0] for port in (9100, 30080, 22)] == [1, 2, 0]
    assert found(snapshot, "10.0.0.1", port=30080)[0] == 3


def test_an_unclaimed_address_of_a_range_is_a_guess_and_the_narrowest_range_decides() -> None:
    """No pod's address in a node's range is that node's; a claim beats every range."""
    networks = [
        NetworkClaim(ipaddress.ip_network("10.0.0.0/8"), 0),
        NetworkClaim(ipaddress.ip_network("10.1.0.0/16"), 1),
        NetworkClaim(ipaddress.ip_network("127.0.0.0/8"), 2, is_exact=True),
        NetworkClaim(ipaddress.ip_network("fd00::/64"), 3),
    ]
    snapshot = table([claim("10.1.0.9", 4)], networks=networks)

    assert found(snapshot, "10.2.0.1") == (0, Certainty.GUESS)
    assert found(snapshot, "10.1.0.1") == (1, Certainty.GUESS)
    assert found(snapshot, "127.0.0.53") == (2, Certainty.EXACT)
    assert found(snapshot, "fd00::5") == (3, Certainty.GUESS)
    assert found(snapshot, "10.1.0.9") == (4, Certainty.EXACT)
    assert found(snapshot, "fd00:0:0:1::5") == (-1, Certainty.UNKNOWN)


def test_ports_belong_to_the_last_rows() -> None:
    """Clients and servers are looked up in one go: only the servers' ports mean something."""
    snapshot = table([claim("10.0.0.1", 0, group=7)], ports=[(7, 80, 1)])

    answer = snapshot.find(addresses("10.0.0.1", "10.0.0.1"), times(1, 1), np.array([80], np.int64))

    assert answer.workload.tolist() == [0, 1]


def test_random_tables_answer_like_a_plain_search() -> None:
    """Hundreds of addresses with histories of disjoint intervals: every lookup equals a search through the list."""
    random_ = random.Random(4)
    pool = [f"10.{random_.randrange(256)}.{random_.randrange(256)}.{random_.randrange(256)}" for _ in range(300)]
    pool += [f"2001:db8:{random_.randrange(65536):x}::{random_.randrange(65536):x}" for _ in range(200)]
    claims, number = [], 0
    for address in pool:
        edges = sorted(random_.sample(range(1000), 2 * random_.randrange(1, 4)))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            claims.append((address, number, start, end))
            number += 1
    random_.shuffle(claims)
    snapshot = table([claim(*one) for one in claims])
    asked = [(random_.choice(pool), random_.randrange(1000)) for _ in range(5000)]

    answer = snapshot.find(addresses(*[one for one, _ in asked]), times(*[at for _, at in asked]))

    by_address: dict[bytes, list[tuple[int, int, int]]] = {}
    for address, owner, start, end in claims:
        by_address.setdefault(packed(address), []).append((start, end, owner))
    expected = [next((owner for start, end, owner in by_address[packed(one)] if start <= at < end), -1) for one, at in asked]
    assert answer.workload.tolist() == expected


def test_random_networks_answer_like_ipaddress() -> None:
    """The narrowest network of both versions, for addresses inside and outside."""
    random_ = random.Random(5)
    networks = [ipaddress.ip_network((random_.getrandbits(32), random_.randrange(4, 30)), strict=False) for _ in range(100)]
    networks += [ipaddress.ip_network((random_.getrandbits(128), random_.randrange(4, 120)), strict=False) for _ in range(100)]
    table_ = Networks(zip(networks, range(len(networks)), strict=True))
    asked = [network[random_.randrange(min(network.num_addresses, 1000))] for network in networks]
    asked += [ipaddress.ip_address(random_.getrandbits(32)) for _ in range(500)]

    answer = table_.find(addresses(*[str(one) for one in asked]))

    for one, got in zip(asked, answer.tolist(), strict=True):
        holding = [
            (network.prefixlen, number) for number, network in enumerate(networks) if network.version == one.version and one in network
        ]
        assert got == (max(holding)[1] if holding else -1)
