"""The cluster as far as it is known: objects in, snapshots out.

Pure: whoever calls it brings the time, and calls from one thread at a time. Each object's rows are made once and kept packed; a snapshot
joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

import numpy as np
from msgspec import structs

from otel_ebpf_receiver.identity import snapshot as snapshots
from otel_ebpf_receiver.identity.kubernetes import rows
from otel_ebpf_receiver.identity.kubernetes.objects import Namespace, Node, Owner, Pod, Slice
from otel_ebpf_receiver.identity.kubernetes.rows import Around, Options, Rows
from otel_ebpf_receiver.identity.kubernetes.selection import Selection, selection
from otel_ebpf_receiver.identity.kubernetes.slots import Slots
from otel_ebpf_receiver.identity.snapshot import CLAIM, OPEN_NS, PORT, NetworkClaim, Snapshot, Trait
from otel_ebpf_receiver.telemetry.workload import Workload

PODS, PEERS, SERVICES, SLICES, NODES, NAMESPACES = "pods", "peers", "services", "endpointslices", "nodes", "namespaces"
_DERIVED: Mapping[str, Callable[[Any, Around], Rows]] = {
    SLICES: rows.slice_rows,
    SERVICES: rows.service_rows,
    NODES: rows.node_rows,
    PEERS: rows.peer_rows,
    PODS: rows.pod_rows,
}
"""In the order in which they are believed: of claims that start together the last wins."""
_LOOPBACK = ip_network("127.0.0.0/8")
_KEPT_OWNERS = 4096
_KEPT_EXPORTING = 4096


@dataclass(frozen=True, slots=True)
class WantedOwner:
    """A ReplicaSet or Job whose own controller is asked for."""

    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Who is asked for, and the uids of the pods that it is asked for."""

    owner: WantedOwner
    pods: set[str]


@dataclass(frozen=True, slots=True)
class _Ended:
    """Rows of a pod that is gone, until late exchanges have come."""

    rows: Rows
    leaves_ns: int


class Store:
    """All objects by kind and uid. Methods that take `now_ns` want Unix time."""

    def __init__(self, options: Options, permanent: tuple[Workload, ...] = ()) -> None:
        self._options = options
        self._slots = Slots(permanent)
        self._tables: dict[str, dict[str, Any]] = {kind: {} for kind in (*_DERIVED, NAMESPACES)}
        self._rows: dict[str, dict[str, Rows]] = {kind: {} for kind in _DERIVED}
        self._dirty: dict[str, dict[str, None]] = {kind: {} for kind in _DERIVED}
        self._wanted: dict[str, _Wanted] = {}
        self._joined: dict[str, tuple[bytes, bytes]] = {}
        self._owners: dict[str, Owner | None] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._around = Around(
            options,
            self._slots,
            options.cluster,
            namespaces=self._namespaces,
            owners=self._owners,
            here=rows.here(None, options),
            agent_nodes=frozenset({options.node}),
        )
        self._ended: list[_Ended] = []
        self._own_node: Node | None = None
        self.node_addresses: frozenset[bytes] = frozenset()
        """What the API server says are this node's addresses."""
        self._is_stale = True
        self._built: Snapshot | None = None
        """The last snapshot, as long as all addresses and ports are as in it."""

    @property
    def cluster_uid(self) -> str:
        """uid of the namespace kube-system, which stands for the cluster; empty: not known yet."""
        return self._around.cluster.uid

    def selection(self) -> Selection | None:
        """The addresses of this node that can matter; None: all."""
        return selection(self._tables[PODS].values(), self._own_node, self._around)

    @property
    def counts(self) -> dict[str, int]:
        """Objects by kind."""
        return {kind: len(table) for kind, table in self._tables.items()}

    def replace(self, kind: str, objects: Mapping[str, Any], now_ns: int) -> bool:
        """These are all objects of a kind, by uid. True when that is news."""
        table = self._tables[kind]
        old = dict(table)
        changed = [uid for uid in old if uid not in objects and self._put(kind, uid, None, now_ns)]
        changed += [uid for uid, value in objects.items() if self._put(kind, uid, value, now_ns)]
        self._look_around(kind, [(old.get(uid), table.get(uid)) for uid in changed])
        return bool(changed)

    def apply(self, kind: str, uid: str, value: Any | None, now_ns: int) -> bool:
        """One object is so, or (None) is gone. True when that is news."""
        # hot: benchmarks/identity.py
        old = self._tables[kind].get(uid)
        is_news = self._put(kind, uid, value, now_ns)
        if is_news and kind not in (PODS, PEERS):
            self._look_around(kind, [(old, value)])
        return is_news

    def _put(self, kind: str, uid: str, value: Any | None, now_ns: int) -> bool:
        """As `apply`, but for what others' rows depend on."""
        # hot: benchmarks/identity.py
        table = self._tables[kind]
        old = table.get(uid)
        if isinstance(value, Pod) and value.is_ended:
            value = _with_end(value, old, now_ns)
        if value == old:
            return False
        if kind in (PODS, PEERS):
            self._want_owner(kind, uid, old, value)
        if value is None:
            del table[uid]
            self._forget(kind, uid, old, now_ns)
        else:
            table[uid] = value
            self._mark(kind, uid)
        return True

    def watch_peers(self, *, is_on: bool) -> None:
        """Whether the pods of other nodes are known too."""
        self._around.watches_peers = is_on
        self._is_stale = True

    def mark_exporting(self, uid: str, what: Trait) -> bool:
        """A pod was seen to export telemetry of its own. True when that is news."""
        known = self._around.exporting
        if uid not in self._tables[PODS] or known.get(uid, Trait(0)) & what == what:
            return False
        if len(known) >= _KEPT_EXPORTING:
            known = {one: made for one, made in known.items() if one in self._tables[PODS]}
        self._around.exporting = {**known, uid: known.get(uid, Trait(0)) | what}
        self._mark(PODS, uid)
        return True

    @property
    def wants_owners(self) -> bool:
        """There are `wanted_owners`. Any thread may ask."""
        return bool(self._wanted)

    def lacks_owners(self, known: Container[str]) -> bool:
        """There are `wanted_owners` whose uid is not among these."""
        # hot: benchmarks/identity.py. Nearly always there are none.
        return bool(self._wanted) and any(uid not in known for uid in self._wanted)

    def wanted_owners(self) -> list[WantedOwner]:
        """Controllers whose own controller is not known yet: of pods of this node, and Jobs, whose names do not tell, also of others' pods
        that run. Those of nobody are not among them."""
        return [one.owner for one in self._wanted.values()]

    def give_up_owner(self, uid: str) -> None:
        """The ReplicaSet or Job `uid` is not there any more."""
        self._wanted.pop(uid, None)

    def set_owner(self, uid: str, owner: Owner | None) -> None:
        """The controller of the ReplicaSet or Job `uid`; None: it has none."""
        if len(self._owners) >= _KEPT_OWNERS:
            used = {pod.owner.uid for kind in (PODS, PEERS) for pod in self._tables[kind].values() if pod.owner}
            for unused in [known for known in self._owners if known not in used]:
                del self._owners[unused]
        self._owners[uid] = owner
        self._wanted.pop(uid, None)
        for kind in (PODS, PEERS):
            for pod in list(self._tables[kind].values()):
                if pod.owner and pod.owner.uid == uid:
                    self._mark(kind, pod.uid)

    def build(self, now_ns: int, *, is_current: bool) -> Snapshot:
        """The snapshot of now. `is_current`: what is not known may be in a moment."""
        self._refresh()
        self._purge(now_ns)
        built = self._built or self._build(now_ns)
        # hot: benchmarks/identity.py. Most news is about labels and states: nobody has moved, only who they are is said differently.
        traits = self._slots.traits.tobytes() + bytes(2)
        if traits != built.traits.tobytes():
            known = np.frombuffer(traits, np.uint16)
            built = replace(built, traits=known, leaves_out=snapshots.leaves_out(known, built.reports_unknown))
        self._built = built = replace(built, workloads=tuple(self._slots.workloads), is_current=is_current)
        return built

    def _build(self, now_ns: int) -> Snapshot:
        joined = [self._join(kind) for kind in self._rows]
        claims = np.frombuffer(b"".join([*(one.rows.claims for one in self._ended), *(claims for claims, _ in joined)]), CLAIM)
        claims = claims[claims["until_ns"] + np.uint64(self._options.grace_ns) > np.uint64(now_ns)]
        ports = np.frombuffer(b"".join([*(one.rows.ports for one in self._ended), *(ports for _, ports in joined)]), PORT)
        return snapshots.build(
            self._slots.workloads,
            self._slots.traits,
            claims,
            ports,
            networks=self._networks(),
            is_cluster=True,
            reports_unknown=not self._options.include,
        )

    def _want_owner(self, kind: str, uid: str, old: Pod | None, new: Pod | None) -> None:
        """A pod came, changed or went, and with it who is asked for."""
        before, after = _asked_for(kind, old), _asked_for(kind, new)
        if before == after:
            # Also where it was asked for, and the server knows it no more.
            return
        if before and (wanted := self._wanted.get(before.uid)):
            wanted.pods.discard(uid)
            if not wanted.pods:
                del self._wanted[before.uid]
        if new and after and after.uid not in self._owners:
            made = _Wanted(WantedOwner(after.kind, new.namespace, after.name, after.uid), set())
            self._wanted.setdefault(after.uid, made).pods.add(uid)

    def _move(self, kind: str) -> None:
        """Somebody's addresses or ports are not what they were."""
        self._joined.pop(kind, None)
        self._built = None

    def _join(self, kind: str) -> tuple[bytes, bytes]:
        """Claims and ports of a kind: joined again only when one of its objects changed."""
        joined = self._joined.get(kind)
        if joined is None:
            rows = self._rows[kind].values()
            joined = self._joined[kind] = b"".join([one.claims for one in rows]), b"".join([one.ports for one in rows if one.ports])
        return joined

    def _networks(self) -> list[NetworkClaim]:
        claims = []
        nodes = [*self._tables[NODES].values()] if self._own_node else [*self._tables[NODES].values(), Node("", self._options.node)]
        for node in nodes:
            is_own = node.name == self._options.node
            if not (is_own or self._around.watches_peers):
                continue
            number = self._slots.number(("node", node.name))
            address = rows.ELSEWHERE if is_own else next(iter(node.addresses), None)
            group = snapshots.NO_GROUP if address is None else self._around.group(address)
            claims += [NetworkClaim(network, number, group) for network in node.networks]
            claims += [NetworkClaim(_LOOPBACK, number, self._around.group(rows.LOOPBACK), is_exact=True)] if is_own else []
        return claims

    def _look_around(self, kind: str, changes: list[tuple[Any, Any]]) -> None:
        """What other objects' rows depend on, as it was and is: they are made anew at the next build. Once for a whole list."""
        if kind == NAMESPACES:
            self._see_namespaces(changes)
        elif kind == NODES:
            self._see_nodes(changes)
        elif kind == SLICES and any(one and self._is_agents(one) for change in changes for one in change):
            self._see_agents()

    def _see_namespaces(self, changes: list[tuple[Namespace | None, Namespace | None]]) -> None:
        for old, new in changes:
            if new:
                self._namespaces[new.name] = new
            elif old and (known := self._namespaces.get(old.name)) and known.uid == old.uid:
                del self._namespaces[old.name]
            self._is_stale |= bool((old and old.annotations) or (new and new.annotations))
        system = self._namespaces.get("kube-system")
        if system and system.uid != self._around.cluster.uid:
            self._around.cluster = replace(self._around.cluster, uid=system.uid)
            self._is_stale = True

    def _see_nodes(self, changes: list[tuple[Node | None, Node | None]]) -> None:
        around, own, addresses = self._around, self._own_node, self._around.node_addresses
        for old, new in changes:
            if new and new.name == self._options.node:
                own = new
            elif old and own and old.uid == own.uid:
                own = None
            if (old.networks if old else ()) != (new.networks if new else ()):
                self._built = None
        if any((old.addresses if old else ()) != (new.addresses if new else ()) for old, new in changes):
            addresses = frozenset(address for node in self._tables[NODES].values() for address in node.addresses)
        here = rows.here(own, self._options)
        self._is_stale |= (addresses, here, own is None) != (around.node_addresses, around.here, self._own_node is None)
        around.node_addresses, around.here, self._own_node = addresses, here, own
        self.node_addresses = frozenset(own.addresses if own else ())

    def _see_agents(self) -> None:
        slices = [one for one in self._tables[SLICES].values() if self._is_agents(one)]
        nodes = frozenset({self._options.node, *(endpoint.node for one in slices for endpoint in one.endpoints if endpoint.is_ready)})
        changed, self._around.agent_nodes = nodes ^ self._around.agent_nodes, nodes
        for uid, pod in self._tables[PEERS].items() if changed else ():
            if pod.node in changed:
                self._mark(PEERS, uid)

    def _is_agents(self, one: Slice) -> bool:
        return f"{one.namespace}/{one.service}" == self._options.agents_service

    def _mark(self, kind: str, uid: str) -> None:
        """An object's rows are to be made anew at the next build: once, however often it changes until then."""
        # hot: benchmarks/identity.py
        if kind in _DERIVED:
            self._dirty[kind][uid] = None

    def _refresh(self) -> None:
        """Make the rows of what changed."""
        if self._is_stale:
            self._is_stale = False
            self._built = None
            self._release(self._rows[NODES].pop("", None))
            self._dirty = {kind: dict.fromkeys(self._tables[kind]) for kind in _DERIVED}
        for kind, uids in self._dirty.items():
            for uid in uids:
                self._derive(kind, uid, self._tables[kind][uid])
            uids.clear()
        if not self._own_node and "" not in self._rows[NODES]:
            # Without the node's object (not permitted, not there yet) it is still this node that answers on its loopback.
            self._derive(NODES, "", Node("", self._options.node))

    def _derive(self, kind: str, uid: str, value: Any) -> None:
        old = self._rows[kind].get(uid)
        new = self._rows[kind][uid] = _DERIVED[kind](value, self._around)
        if old is None or old.claims != new.claims or old.ports != new.ports:
            self._move(kind)
        self._release(old)

    def _forget(self, kind: str, uid: str, value: Any, now_ns: int) -> None:
        if kind not in _DERIVED:
            return
        self._move(kind)
        if uid in self._dirty[kind]:
            del self._dirty[kind][uid]
            self._derive(kind, uid, value)
        old = self._rows[kind].pop(uid)
        if not isinstance(value, Pod) or not old.claims:
            self._release(old)
            return
        claims = np.frombuffer(old.claims, CLAIM).copy()
        is_open = claims["end_ns"] == OPEN_NS
        # Deleted without having ended (by force): its processes may go on for as long as they were given.
        claims["until_ns"][is_open] = now_ns + self._options.grace_ns
        claims["end_ns"][is_open] = now_ns
        # Its containers are told by the ports of its own group, whose number is its as long as its keys are held; those of the node are others' now.
        ports = np.frombuffer(old.ports, PORT)
        ports = ports[ports["group"] == claims["group"][0]]
        self._ended.append(_Ended(Rows(claims.tobytes(), ports.tobytes(), old.held), now_ns + self._options.grace_ns))

    def _purge(self, now_ns: int) -> None:
        for one in self._ended:
            if one.leaves_ns <= now_ns:
                self._built = None
                self._release(one.rows)
        self._ended = [one for one in self._ended if one.leaves_ns > now_ns]

    def _release(self, old: Rows | None) -> None:
        for key in old.held if old else ():
            self._slots.release(key)


def _asked_for(kind: str, pod: Pod | None) -> Owner | None:
    """The owner of a pod, if it matters who is above it."""
    if pod is None or pod.owner is None:
        return None
    if pod.owner.kind == "Job":
        return pod.owner if kind == PODS or not pod.is_ended else None
    return pod.owner if pod.owner.kind == "ReplicaSet" and kind == PODS else None


def _with_end(pod: Pod, old: Pod | None, now_ns: int) -> Pod:
    """A pod that has ended has an end: what it says, else when that was seen to happen, else (never seen running) its start."""
    if pod.end_ns:
        return pod
    if old is None:
        return structs.replace(pod, end_ns=pod.start_ns)
    return structs.replace(pod, end_ns=old.end_ns if old.is_ended else now_ns)
