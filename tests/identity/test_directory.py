"""What is reported of an exchange, and under whose name."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest

from otel_ebpf_receiver.config.schema import Service
from otel_ebpf_receiver.identity.address import packed
from otel_ebpf_receiver.identity.directory import Behind, Directory, Policy
from otel_ebpf_receiver.identity.snapshot import SHARED, NetworkClaim, Snapshot, Trait
from otel_ebpf_receiver.identity.static import Statics
from otel_ebpf_receiver.telemetry.columns import Bools
from otel_ebpf_receiver.telemetry.workload import Identified, Identity, unmasked
from tests.identity.flows import ARRIVED, LEFT, Row, claim, flows, table

PAIR_A, PAIR_B, UPLINK, LOOPBACK = 11, 12, 2, 1
TAPS = {PAIR_A: Behind.WORKLOAD, PAIR_B: Behind.WORKLOAD, UPLINK: Behind.NODE, LOOPBACK: Behind.LOOPBACK}
POD = Trait.LOCAL | Trait.SELECTED | Trait.ASKS_AUDIBLY
# 0, 1: pods of this node; 2: this node; 3: its host-network pod at 9100; 4: a pod elsewhere with an agent; 5: another node; 6: a Service
TRAITS = [POD, POD, Trait.HOST | Trait.NODE | Trait.SELECTED, Trait.HOST | Trait.SELECTED, Trait.ASKS_AUDIBLY, Trait.NODE, Trait(0)]
CLAIMS = [
    claim("10.1.0.2", 0),
    claim("10.1.0.3", 1),
    claim("192.168.0.1", 2, group=8),
    claim("10.2.0.2", 4),
    claim("192.168.0.2", 5, group=10),
    claim("10.96.0.1", 6),
]
PORTS = [(8, 9100, 3), (SHARED, 30080, 6)]
NETWORKS = [NetworkClaim(ipaddress.ip_network("10.1.0.0/24"), 2, 8), NetworkClaim(ipaddress.ip_network("10.2.0.0/24"), 5)]


def directory(snapshot: Snapshot | None = None, *, policy: Policy | None = None, services: list[Service] | None = None) -> Directory:
    """A directory of these taps."""
    made = Directory(Statics(services or []), policy, is_cluster=snapshot is not None)
    if snapshot:
        made.snapshot = snapshot
    made.watch_taps(TAPS)
    return made


def cluster(traits: list[Trait] | None = None, *, is_current: bool = False, reports_unknown: bool = True) -> Directory:
    """The directory of the cluster above."""
    return directory(table(CLAIMS, traits or TRAITS, PORTS, networks=NETWORKS, is_current=is_current, reports_unknown=reports_unknown))


def shown(named: Identified, row: int = 0) -> tuple[int, int, str]:
    """Client, server, and the kinds: C, S, and j where the server span may name the client span."""
    kinds = "C" * bool(named.report_client[row]) + "S" * bool(named.report_server[row]) + "j" * bool(named.joined[row])
    return int(named.client[row]), int(named.server[row]), kinds


CASES: dict[str, tuple[Row, tuple[int, int, str]]] = {
    "a pod asks a pod of this node, at the asker's pair": ((PAIR_A, ARRIVED, "10.1.0.2", 40000, "10.1.0.3", 80), (0, 1, "C")),
    "the same at the answerer's pair": ((PAIR_B, LEFT, "10.1.0.2", 40000, "10.1.0.3", 80), (0, 1, "Sj")),
    "a pod asks a Service by its address": ((PAIR_A, ARRIVED, "10.1.0.2", 40000, "10.96.0.1", 80), (0, 6, "C")),
    "a pod asks somebody outside": ((PAIR_A, ARRIVED, "10.1.0.2", 40000, "203.0.113.9", 80), (0, -1, "C")),
    "somebody outside asks a pod": ((PAIR_A, LEFT, "203.0.113.9", 40000, "10.1.0.2", 80), (-1, 0, "S")),
    "a pod elsewhere with an agent asks a pod": ((PAIR_A, LEFT, "10.2.0.2", 40000, "10.1.0.2", 80), (4, 0, "Sj")),
    "a node elsewhere asks a pod": ((PAIR_A, LEFT, "192.168.0.2", 40000, "10.1.0.2", 80), (5, 0, "S")),
    "this node asks a pod": ((PAIR_A, LEFT, "192.168.0.1", 40000, "10.1.0.2", 80), (2, 0, "S")),
    "a pod asks its node's host-network pod": ((PAIR_A, ARRIVED, "10.1.0.2", 40000, "192.168.0.1", 9100), (0, 3, "CSj")),
    "a pod asks its node": ((PAIR_A, ARRIVED, "10.1.0.2", 40000, "192.168.0.1", 22), (0, 2, "CSj")),
    "a pod asks a node port of its node": ((PAIR_A, ARRIVED, "10.1.0.2", 40000, "192.168.0.1", 30080), (0, 6, "C")),
    "somebody outside asks a node port": ((UPLINK, ARRIVED, "203.0.113.9", 40000, "192.168.0.1", 30080), (-1, 6, "")),
    "somebody outside asks a host-network pod": ((UPLINK, ARRIVED, "203.0.113.9", 40000, "192.168.0.1", 9100), (-1, 3, "S")),
    "this node asks somebody outside": ((UPLINK, LEFT, "192.168.0.1", 40000, "203.0.113.9", 80), (2, -1, "C")),
    "a copy of a pod's exchange at the uplink": ((UPLINK, LEFT, "10.1.0.2", 40000, "10.2.0.2", 80), (0, 4, "")),
    "strangers pass the uplink": ((UPLINK, ARRIVED, "203.0.113.9", 40000, "203.0.113.10", 80), (-1, -1, "")),
    "the node asks its host-network pod on the loopback": ((LOOPBACK, LEFT, "192.168.0.1", 40000, "192.168.0.1", 9100), (2, 3, "CSj")),
    "a tap that nobody described is the network's": ((99, ARRIVED, "203.0.113.9", 40000, "192.168.0.1", 9100), (-1, 3, "S")),
    "a pair that turns out to be a cable": ((PAIR_A, ARRIVED, "10.2.0.2", 40000, "192.168.0.1", 9100), (4, 3, "Sj")),
    "direction unknown, the client is a pod of this node": ((PAIR_A, 0, "10.1.0.2", 40000, "203.0.113.9", 80), (0, -1, "C")),
    "direction unknown, the server is": ((PAIR_A, 0, "203.0.113.9", 40000, "10.1.0.2", 80), (-1, 0, "S")),
    "behind the pair is somebody not known, who asks": ((PAIR_A, ARRIVED, "172.17.0.2", 40000, "10.1.0.2", 80), (-1, 0, "C")),
    "behind the pair is somebody not known, who answers": ((PAIR_A, LEFT, "10.1.0.3", 40000, "172.17.0.2", 80), (1, -1, "Sj")),
    "a new pod of this node's range is not the node": ((PAIR_A, LEFT, "10.2.0.2", 40000, "10.1.0.77", 80), (4, -1, "Sj")),
}


@pytest.mark.parametrize("name", CASES)
def test_with_kubernetes_each_side_is_reported_where_it_is_sure(name: str) -> None:
    """Kinds and names by tap, direction and addresses."""
    row, expected = CASES[name]

    assert shown(cluster().identify(flows(row))) == expected


def test_rows_of_a_batch_do_not_disturb_each_other() -> None:
    """All cases in one batch give what each gives alone."""
    named = cluster().identify(flows(*[row for row, _ in CASES.values()]))

    assert [shown(named, number) for number in range(len(CASES))] == [expected for _, expected in CASES.values()]


def test_a_directory_is_what_telemetry_asks_for() -> None:
    """It fits telemetry's seam."""
    made: Identity = directory()

    identified = made.identify(flows((UPLINK, ARRIVED, "10.0.0.1", 40000, "10.0.0.2", 80)))

    assert identified.report_server.tolist() == [True]
    assert made.name(packed("10.0.0.1")) == ""


def test_the_node_is_called_the_client_of_a_pod_only_when_nothing_came_in() -> None:
    """A node's address may be a masquerade: known to have arrived elsewhere, or not known, it makes no CLIENT span."""
    row: Row = (PAIR_A, LEFT, "192.168.0.1", 40000, "10.1.0.2", 80)

    alone = cluster().identify(flows(row), arrived=np.array([False]))
    forwarded = cluster().identify(flows(row), arrived=np.array([True]))

    assert shown(alone) == (2, 0, "CSj")
    assert shown(forwarded) == (2, 0, "S")


def test_what_was_forwarded_is_not_the_nodes_own() -> None:
    """A masqueraded copy that leaves at the uplink is nobody's of this node."""
    row: Row = (UPLINK, LEFT, "192.168.0.1", 40000, "10.2.0.2", 80)

    assert shown(cluster().identify(flows(row), arrived=np.array([True]))) == (2, 4, "")


@pytest.mark.parametrize("arrived", [np.array([True, True, True]), None], ids=["seen coming in", "not known"])
def test_who_is_behind_a_masquerade_is_told_by_its_own_row(arrived: Bools | None) -> None:
    """The row of the same exchange at the asker's pair names the client and the parent; rows of other exchanges do not."""
    rows: list[Row] = [
        (PAIR_A, ARRIVED, "10.1.0.2", 40000, "10.96.0.1", 80),
        (PAIR_B, LEFT, "192.168.0.1", 40000, "10.1.0.3", 80),
        (PAIR_B, LEFT, "192.168.0.1", 40001, "10.1.0.3", 80),
    ]
    named = cluster().identify(flows(*rows), arrived=arrived)

    told = unmasked(named, np.array([7, 7, 8], np.uint64))

    assert [shown(told, row) for row in range(3)] == [(0, 6, "C"), (0, 1, "Sj"), (2, 1, "S")]
    assert shown(named, 1) == (2, 1, "S")


def test_a_masked_client_whose_span_is_its_sdks_is_no_parent() -> None:
    """It is named, but no CLIENT span is made here."""
    traits = [POD | Trait.TRACED, *TRAITS[1:]]
    rows: list[Row] = [(PAIR_A, ARRIVED, "10.1.0.2", 40000, "10.96.0.1", 80), (PAIR_A, LEFT, "192.168.0.1", 40000, "10.1.0.3", 80)]

    told = unmasked(cluster(traits).identify(flows(*rows), arrived=np.array([True, True])), np.array([7, 7], np.uint64))

    assert shown(told, 1) == (0, 1, "S")


def test_a_node_that_asked_itself_hides_nobody() -> None:
    """Nothing came in: the node's address is the node's."""
    rows: list[Row] = [(PAIR_A, ARRIVED, "10.1.0.2", 40000, "10.96.0.1", 80), (PAIR_B, LEFT, "192.168.0.1", 40000, "10.1.0.3", 80)]

    named = cluster().identify(flows(*rows), arrived=np.array([True, False]))

    assert named.masked is not None
    assert not named.masked.any()


def test_without_kubernetes_the_servers_side_is_reported() -> None:
    """Whatever the tap and the direction: SERVER, under the host's Resource."""
    named = directory().identify(
        flows((PAIR_A, ARRIVED, "172.17.0.2", 40000, "10.0.0.2", 80), (UPLINK, LEFT, "10.0.0.1", 40000, "10.0.0.2", 80))
    )

    assert [shown(named, row) for row in (0, 1)] == [(-1, -1, "S")] * 2


def test_without_kubernetes_a_named_client_behind_a_pair_gives_both_kinds() -> None:
    """Containers that the configuration names: CLIENT at the asker's pair, SERVER at the answerer's, joined."""
    services = [
        Service("front", "", (ipaddress.ip_network("172.17.0.2"),)),
        Service("back", "", (ipaddress.ip_network("172.17.0.3"),), (80,)),
    ]
    made = directory(services=services)

    named = made.identify(
        flows((PAIR_A, ARRIVED, "172.17.0.2", 40000, "172.17.0.3", 80), (PAIR_B, LEFT, "172.17.0.2", 40000, "172.17.0.3", 80))
    )

    assert [shown(named, row) for row in (0, 1)] == [(0, 1, "C"), (0, 1, "Sj")]


def test_without_kubernetes_a_named_client_elsewhere_joins_nothing() -> None:
    """Nobody here makes a CLIENT span for it: a server span that named one would hang from nothing."""
    made = directory(services=[Service("front", "", (ipaddress.ip_network("10.0.0.1"),))])

    assert shown(made.identify(flows((UPLINK, ARRIVED, "10.0.0.1", 40000, "10.0.0.2", 80)))) == (0, -1, "S")


def test_names_of_the_configuration_fill_what_kubernetes_leaves() -> None:
    """Somebody outside, and what the node itself listens on; pods keep their own name."""
    services = [Service("bank", "", (ipaddress.ip_network("203.0.113.0/24"),)), Service("sshd", "", (), (22,))]
    base = Statics(services).workloads
    snapshot = table([(*one[:4], one[4] + len(base), one[5]) for one in CLAIMS], [Trait.SELECTED] * 2 + TRAITS, [(8, 9100, 5)])
    made = directory(snapshot, services=services)

    named = made.identify(
        flows(
            (PAIR_A, ARRIVED, "10.1.0.2", 40000, "203.0.113.9", 443),
            (UPLINK, ARRIVED, "203.0.113.9", 40000, "192.168.0.1", 22),
            (PAIR_A, LEFT, "203.0.113.9", 40000, "10.1.0.2", 22),
        )
    )

    assert [shown(named, row) for row in range(3)] == [(2, 0, "C"), (0, 1, "S"), (0, 2, "S")]


def test_what_is_not_selected_is_not_reported_and_joins_nothing() -> None:
    """A deselected client gives no CLIENT span, so that the other side's span is not its child."""
    traits = [Trait.LOCAL, *TRAITS[1:]]
    made = cluster(traits)

    asker = made.identify(flows(CASES["a pod asks a pod of this node, at the asker's pair"][0]))
    answerer = made.identify(flows(CASES["the same at the answerer's pair"][0]))

    assert (shown(asker), shown(answerer)) == ((0, 1, ""), (0, 1, "S"))
    assert made.counters.deselected == 1


def test_with_chosen_namespaces_unknown_workloads_are_not_reported() -> None:
    """Only what is known to be wanted."""
    made = cluster(reports_unknown=False)

    assert shown(made.identify(flows(CASES["behind the pair is somebody not known, who asks"][0]))) == (-1, 0, "")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(True, True), ("", True, True, 1, 1)),
        (Policy(True, False), ("C", True, False, 1, 0)),
        (Policy(False, True), ("C", False, True, 0, 1)),
        (Policy(False, False), ("C", False, False, 0, 0)),
    ],
)
def test_instrumented_workloads_give_no_duplicates(policy: Policy, expected: tuple[str, bool, bool, int, int]) -> None:
    """Spans and metrics each by their switch, counted."""
    traits = [Trait.LOCAL | Trait.SELECTED | Trait.INSTRUMENTED, *TRAITS[1:]]
    made = directory(table(CLAIMS, traits, PORTS), policy=policy)

    named = made.identify(flows((PAIR_A, ARRIVED, "10.1.0.2", 40000, "203.0.113.9", 80)))

    assert named.silent is not None
    assert named.uncounted is not None
    counted = (made.counters.instrumented_spans, made.counters.instrumented_metrics)
    assert (shown(named)[2], bool(named.silent.client[0]), bool(named.uncounted.client[0]), *counted) == expected


def test_an_instrumented_client_leaves_its_servers_report_alone() -> None:
    """A pod that an SDK reports for asks its node: the node's SERVER span stays, and hangs from nothing of ours."""
    traits = [Trait.LOCAL | Trait.SELECTED | Trait.INSTRUMENTED, *TRAITS[1:]]
    made = directory(table(CLAIMS, traits, PORTS))

    assert shown(made.identify(flows(CASES["a pod asks its node's host-network pod"][0]))) == (0, 3, "S")


def test_a_pod_that_is_not_known_yet_waits_and_then_leaves() -> None:
    """It waits only while somebody may come to know it, once, and again after a minute."""
    made = cluster(is_current=True)
    told: list[bool] = []
    made.on_waiting = lambda: told.append(True)
    row: Row = (PAIR_A, LEFT, "10.2.0.2", 40000, "10.1.0.77", 80)

    first = made.identify(flows(row, at_s=1000))
    last = made.identify(flows(row, at_s=1000), has_waited=True)
    soon = made.identify(flows(row, at_s=1010))
    later = made.identify(flows(row, at_s=1100))

    assert [bool(one.waits[0]) for one in (first, last, soon, later) if one.waits is not None] == [True, False, False, True]
    assert shown(last) == (4, -1, "Sj")
    assert made.counters.identified == 2
    assert told == [True, True]


def test_what_has_not_ended_is_told_at_once_and_counts_for_nothing() -> None:
    """Whoever is known of an open request is named; it does not wait, it is counted when it has ended, and it settles nothing for those that have."""
    made = cluster(is_current=True)
    row: Row = (PAIR_A, LEFT, "10.2.0.2", 40000, "10.1.0.77", 80)

    opened = made.identify(flows(row, at_s=1000), is_open=True)
    ended = made.identify(flows(row, at_s=1000))

    assert shown(opened) == (4, -1, "Sj")
    assert opened.waits is not None
    assert ended.waits is not None
    assert (bool(opened.waits[0]), bool(ended.waits[0])) == (False, True)
    assert (made.counters.identified, made.counters.unnamed_peers) == (0, 0)


def test_an_address_whose_owner_has_just_ended_is_always_waited_for() -> None:
    """Though others waited for its next owner in vain: else of two exchanges the later one could be the former owner's, and the earlier one the next's."""
    made = directory(table([claim("10.1.0.9", 0, end_s=1000, until_s=1060)], [Trait.LOCAL | Trait.SELECTED], is_current=True))
    row: Row = (PAIR_A, LEFT, "10.2.0.2", 40000, "10.1.0.9", 80)

    first = made.identify(flows(row, at_s=1010))
    made.identify(flows(row, at_s=1010), has_waited=True)
    later = made.identify(flows(row, at_s=1013))

    assert [bool(one.waits[0]) for one in (first, later) if one.waits is not None] == [True, True]


def test_who_is_known_does_not_wait() -> None:
    """Nor do strangers from outside: nobody will ever know them."""
    named = cluster(is_current=True).identify(flows(*[row for row, _ in list(CASES.values())[:7]]))

    assert named.waits is not None
    assert not named.waits.any()


def test_nobody_waits_while_the_cluster_cannot_be_asked() -> None:
    """Without hope of news it leaves at once with what is known."""
    named = cluster(is_current=False).identify(flows(CASES["a new pod of this node's range is not the node"][0]))

    assert named.waits is not None
    assert not named.waits.any()


def test_who_left_because_the_cluster_could_not_be_asked_waits_once_it_can_be() -> None:
    """Only to have waited while it answered says that nobody will ever know the address."""
    made = cluster(is_current=False)
    row: Row = (PAIR_A, LEFT, "10.2.0.2", 40000, "10.1.0.77", 80)

    left = made.identify(flows(row, at_s=1000), has_waited=True)
    made.snapshot = cluster(is_current=True).snapshot
    later = made.identify(flows(row, at_s=1001))

    assert [bool(one.waits[0]) for one in (left, later) if one.waits is not None] == [False, True]


def test_a_peer_in_a_nodes_range_waits_once_and_is_the_node() -> None:
    """A bridge's address (kubelet's probes come from it) and a pod not known yet look alike at first."""
    made = cluster(is_current=True)
    row: Row = (PAIR_A, LEFT, "10.1.0.1", 40000, "10.1.0.2", 80)

    first = made.identify(flows(row))
    last = made.identify(flows(row), has_waited=True)
    next_ = made.identify(flows(row))

    assert [bool(one.waits[0]) for one in (first, last, next_) if one.waits is not None] == [True, False, False]
    assert shown(last) == (2, 0, "S")


def test_an_address_has_a_name_for_the_host_header() -> None:
    """`service.namespace` of whoever has it now, nothing for strangers."""
    made = cluster()

    assert [made.name(packed(one)) for one in ("10.1.0.2", "10.96.0.1", "203.0.113.9")] == ["w0.shop", "w6.shop", ""]


def test_who_exports_telemetry_of_its_own_is_told_of_once() -> None:
    """The uid of each client of such rows, the first time."""
    told: list[tuple[str, Trait]] = []
    made = cluster()
    made.on_exporting = lambda uid, what: told.append((uid, what))
    named = made.identify(flows(*[(PAIR_A, ARRIVED, one, 40000, "10.96.0.1", 4318) for one in ("10.1.0.2", "10.1.0.2", "203.0.113.9")]))

    none = np.zeros(3, bool)
    made.saw_exports(named, ~none, none)
    made.saw_exports(named, ~none, none)
    made.saw_exports(named, none, ~none)

    assert told == [("uid-0", Trait.TRACED), ("uid-0", Trait.MEASURED)]
