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


@pytest.mark.parametrize("seed", range(4))
def test_random_histories_answer_like_a_plain_search(seed: int) -> None:
    """Reuse, overlaps, ends, grace, ranges and ports in both IP versions: workload and certainty are those of a search by the rules."""
    random_ = random.Random(seed)
    hosts = [f"10.1.{random_.randrange(4)}.{random_.randrange(256)}" for _ in range(150)]
    hosts += [f"fd00:{random_.randrange(4)}::{random_.randrange(65536):x}" for _ in range(150)]
    ranges = [("10.1.0.0/23", 900), ("10.1.2.0/24", 901), ("10.0.0.0/8", 902), ("fd00::/16", 903), ("fd00:1::/32", 904), ("::/0", 905)]
    owners = [History(random_, number, random_.choice(hosts)) for number in range(500)]
    groups = {owner.group for owner in owners if owner.group >= 0}
    ports = {(group, port): 1000 + group for group in groups for port in random_.sample(range(80, 84), 2)}
    networks = [NetworkClaim(ipaddress.ip_network(text), number) for text, number in ranges]
    snapshot = table(
        [claim(one.address, one.number, one.start, one.end, group=one.group, **one.grace) for one in owners],
        [Trait.SELECTED] * 2000,
        [(group, port, number) for (group, port), number in ports.items()],
        networks=networks,
    )
    strangers = [f"10.{random_.randrange(256)}.3.4" for _ in range(50)] + [f"fd0{random_.randrange(4)}:{n}::9" for n in range(50)]
    asked = [(random_.choice(hosts + strangers), random_.randrange(1000), random_.randrange(79, 85)) for _ in range(8000)]

    answer = snapshot.find(
        addresses(*[one for one, _, _ in asked]), times(*[at for _, at, _ in asked]), np.array([port for *_, port in asked], np.int64)
    )

    got = list(zip(answer.workload.tolist(), answer.certainty.tolist(), strict=True))
    assert got == [plain_search(owners, ranges, ports, *one) for one in asked]
    assert set(answer.certainty.tolist()) == {int(Certainty.EXACT), int(Certainty.GRACE), int(Certainty.GUESS)}


class History:
    """One owner of an address: open, ended, or ended with a grace."""

    def __init__(self, random_: random.Random, number: int, address: str) -> None:
        self.number, self.address = number, address
        # Distinct starts: which of two that start together wins is another test's.
        self.start = number * 2
        self.end = random_.choice([None, self.start + random_.randrange(1, 200), self.start + random_.randrange(200, 2000)])
        self.until = self.end and self.end + random_.choice((0, 60))
        self.grace = {} if self.until is None else {"until_s": float(self.until)}
        self.group = number if random_.random() < 0.3 else -1


def plain_search(
    owners: list[History], ranges: list[tuple[str, int]], ports: dict[tuple[int, int], int], address: str, at: int, port: int
) -> tuple[int, int]:
    """What the rules say: the latest owner at the time, else the latest in its grace, else the narrowest range."""
    mine = [one for one in owners if one.address == address]
    # Whoever is said to have ended is over before the next begins.
    starts = [max(one.start, before.end or 0) if before else one.start for before, one in zip([None, *mine], mine, strict=False)]
    begun = [one for one, start in zip(mine, starts, strict=True) if start <= at]
    exact = [one for one in begun if one.end is None or at < one.end]
    grace = [one for one in begun if one.until is not None and at < one.until]
    for found, how in ((exact, Certainty.EXACT), (grace, Certainty.GRACE)):
        if found:
            return ports.get((found[-1].group, port), found[-1].number), int(how)
    parsed = ipaddress.ip_address(address)
    wide = ipaddress.ip_address("::ffff:" + address) if parsed.version == 4 else parsed
    holding = [(net.prefixlen + 96 * (net.version == 4), number) for net, number in _nets(ranges) if parsed in net or wide in net]
    return (max(holding)[1], int(Certainty.GUESS)) if holding else (-1, int(Certainty.UNKNOWN))


def _nets(ranges: list[tuple[str, int]]) -> list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, int]]:
    return [(ipaddress.ip_network(text), number) for text, number in ranges]


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
