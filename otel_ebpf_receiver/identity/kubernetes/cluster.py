"""The cluster, followed: all watches, the owners they lack, and a new snapshot for the directory whenever something changed.

It opens no socket and no thread of its own: `client` and `watch` do. Snapshots are built at once when a list has come, else at most twice
a second however much happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from otel_ebpf_receiver.errors import KubernetesError
from otel_ebpf_receiver.identity.directory import Directory
from otel_ebpf_receiver.identity.kubernetes import decode, objects, resources, store, watch
from otel_ebpf_receiver.identity.kubernetes.client import Api, Refused
from otel_ebpf_receiver.identity.kubernetes.objects import BadObject, Owner
from otel_ebpf_receiver.identity.kubernetes.rows import Options
from otel_ebpf_receiver.identity.kubernetes.selection import Selection
from otel_ebpf_receiver.identity.kubernetes.store import Store, WantedOwner
from otel_ebpf_receiver.identity.kubernetes.watch import Phase, State, Timing, Watch, Worker
from otel_ebpf_receiver.identity.snapshot import Trait

Peers = Literal["auto", "pods", "services"]
PEERS_MAX = 2000
"""Pods up to which `peers: auto` watches them all."""
_BUILD_INTERVAL_S = 0.5
_TOGETHER_S = 0.05
"""What comes so soon after the first news is in the same snapshot."""
_FIRST_WAIT_S = 2.0
"""How long the first snapshot waits for the slowest list, so that Resources are whole from the start."""
_OWNERS_BUDGET_S = 1.0
_RETRY_S = 30.0
_OWNERS_RETRY_S = 5.0
_owner_of = objects.guarded(objects.owner)


@dataclass(frozen=True, slots=True)
class Status:
    """The cluster as its user sees it."""

    watches: Mapping[str, State]
    objects: Mapping[str, int]
    peers: str
    """`pods` or `services`; `auto` while that is not decided."""
    cluster_uid: str
    snapshots_total: int
    requests_total: int
    owner_error: str
    peers_error: str
    """Why it is not decided."""
    listed: frozenset[str]
    """Kinds whose newest list is in no snapshot yet."""
    age_s: float
    """Since the server last confirmed the oldest part of the snapshot; 0 before the first."""

    @property
    def is_synced(self) -> bool:
        """Everything was known at least once."""
        return self.peers != "auto" and all(state.is_synced for state in self.watches.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not as it should be, a sentence each. Empty: whoever is asked about is named by all that the server has told."""
        lines = [
            f"{kind}: {state.phase.value}: {state.error or 'not known yet'}" for kind, state in self.watches.items() if self._lacks(kind)
        ]
        if self.peers == "auto" and not lines:
            lines.append(f"peers: {self.peers_error or 'not known yet'}")
        return (*lines, *([f"owners: {self.owner_error}"] if self.owner_error else []))

    def _lacks(self, kind: str) -> bool:
        state = self.watches[kind]
        return kind in self.listed or not state.is_synced or state.phase not in (Phase.WATCHING, Phase.STOPPED)


class Cluster:
    """Keeps the snapshot of `directory`. `start` once; `stop` is safe twice and before `start`."""

    def __init__(self, api: Api, directory: Directory, options: Options, *, peers: Peers = "auto", timing: Timing | None = None) -> None:
        self._api = api
        self._directory = directory
        self._options = options
        self._lock, self._building = watch.mutex(), watch.mutex()
        self._timing = timing or Timing()
        self._store = Store(options, directory.permanent)
        self._peers: Peers = peers
        self._watches = [Watch(api, one, self, self._timing) for one in resources.resources(options.node, options.cluster.wanted)]
        self._worker = Worker("k8s-snapshot", self._run)
        self._is_changed = False
        self._built_s = -_BUILD_INTERVAL_S
        self._peers_due_s = 0.0
        self._owners_due_s: dict[str, float] = {}
        self._owner_error = self._peers_error = ""
        self._listed = frozenset[str]()
        self._snapshots_total = 0
        self.on_addresses: Callable[[frozenset[bytes]], None] = lambda addresses: None
        """Called with this node's addresses when they are known or changed."""
        self._node_addresses: frozenset[bytes] = frozenset()
        self.selection: Selection | None = None
        """The addresses that can matter, None: all; replaced when that changes."""
        directory.on_exporting = self.mark_exporting
        directory.on_waiting = self.hurry

    @property
    def cluster_uid(self) -> str:
        """uid of kube-system; empty: not known yet."""
        return self._store.cluster_uid

    @property
    def is_ready(self) -> bool:
        """A first snapshot was made of all that is watched."""
        return self._snapshots_total > 0 and self.status().is_synced

    def start(self) -> None:
        for one in self._watches:
            one.worker.start()
        self._worker.start()

    def stop(self, seconds: float = 2.0) -> None:
        """Ends everything; what waits for a silent server is left behind after `seconds`."""
        self._worker.stop()
        for one in self._watches:
            one.stop()
        end_s = watch.monotonic_s() + seconds
        for worker in (self._worker, *(one.worker for one in self._watches)):
            worker.join(max(0.0, end_s - watch.monotonic_s()))
        self._api.close()

    def status(self) -> Status:
        """Cheap, and callable by any thread."""
        # In this order: remote pods are watched before that is decided, and what is synced was listed before.
        peers = self._peers
        watches = {one.kind: one.state for one in list(self._watches)}
        listed = self._listed
        contacts = [state.contact_s for state in watches.values() if state.is_synced]
        age_s = watch.monotonic_s() - min(contacts) if contacts and self._snapshots_total else 0.0
        return Status(
            watches,
            self._store.counts,
            peers,
            self._store.cluster_uid,
            self._snapshots_total,
            self._api.requests_total,
            self._owner_error,
            self._peers_error,
            listed,
            age_s,
        )

    def mark_exporting(self, uid: str, what: Trait) -> None:
        """A pod was seen to export telemetry of its own: `TRACED`, `MEASURED`."""
        with self._lock:
            if self._store.mark_exporting(uid, what):
                self._note()

    def hurry(self) -> None:
        """Somebody waits for a name: what is known by now of the server is read at once."""
        for one in self._watches:
            one.hurry()

    def replace(self, kind: str, objects: Mapping[str, Any]) -> None:
        """Of `watch.Sink`."""
        with self._lock:
            self._store.replace(kind, objects, watch.unix_ns())
            if kind == store.PEERS:
                self._store.watch_peers(is_on=True)
            self._listed |= {kind}
            self._is_changed = True
            self._peers_due_s = 0.0
            if kind == store.PODS and not self._directory.snapshot.is_current:
                # Whoever is new waits for the snapshot with these pods.
                self._directory.snapshot = replace(self._directory.snapshot, is_current=True)
        self._worker.wake()

    def apply(self, kind: str, uid: str, value: Any | None) -> None:
        """Of `watch.Sink`."""
        with self._lock:
            self._is_changed |= self._store.apply(kind, uid, value, watch.unix_ns())

    def settled(self, kind: str) -> None:
        """Of `watch.Sink`."""
        if not self._is_changed:
            return
        is_due = self._snapshots_total and watch.monotonic_s() >= self._built_s + _BUILD_INTERVAL_S
        if is_due and not self._lacks_owners():
            # hot: benchmarks/identity.py. Built by whoever read what is new, while it is at hand: to wake another thread for it takes as long again.
            self._build()
        else:
            self._worker.wake()

    def changed(self, kind: str) -> None:
        """Of `watch.Sink`."""
        self._note()

    def _note(self) -> None:
        self._is_changed = True
        self._worker.wake()

    def _run(self, worker: Worker) -> None:
        self._decide_peers()
        first_s = watch.monotonic_s() + _FIRST_WAIT_S
        while not worker.is_stopping() and not self._has_answers() and (left_s := first_s - watch.monotonic_s()) > 0:
            worker.pause(left_s)
        while not worker.is_stopping():
            self._decide_peers()
            self._find_owners(worker)
            wait_s = 0.0 if self._listed else self._built_s + _BUILD_INTERVAL_S - watch.monotonic_s()
            if self._is_changed and wait_s <= 0:
                worker.pause(_TOGETHER_S)
                self._build()
                wait_s = _BUILD_INTERVAL_S
            idle_s = _OWNERS_RETRY_S if self._store.wanted_owners() else _RETRY_S
            worker.pause(wait_s if self._is_changed else idle_s)

    def _has_answers(self) -> bool:
        return all(one.state.is_synced or one.state.error for one in self._watches)

    def _build(self) -> None:
        """A new snapshot; of threads that come together one makes it for all."""
        with self._building:
            if self._is_changed:
                self._built_s = watch.monotonic_s()
                self._publish()

    def _publish(self) -> None:
        phase = next(one.phase for one in self._watches if one.kind == store.PODS)
        with self._lock:
            self._is_changed = False
            is_current = phase in (Phase.STARTING, Phase.WATCHING) or store.PODS in self._listed
            self._directory.snapshot = self._store.build(watch.unix_ns(), is_current=is_current)
            self._listed = frozenset()
            addresses, selection = self._store.node_addresses, self._store.selection()
        if selection != self.selection:
            self.selection = selection
        if addresses != self._node_addresses:
            self._node_addresses = addresses
            self.on_addresses(addresses)
        self._snapshots_total += 1

    def _decide_peers(self) -> None:
        """Once the server has said how many pods there are: watch them all, or be content with what backs a Service."""
        peers = self._peers
        if peers == "auto" and watch.monotonic_s() >= self._peers_due_s:
            self._peers_due_s = watch.monotonic_s() + _RETRY_S
            try:
                peers = "pods" if self._count_pods() <= PEERS_MAX else "services"
            except KubernetesError as error:
                self._peers_error = str(error)
                if isinstance(error, Refused) and error.status == 403:
                    peers = "services"
        if peers == "pods" and all(one.kind != store.PEERS for one in self._watches):
            one = Watch(self._api, resources.peers(self._options.node, self._options.cluster.wanted), self, self._timing)
            self._watches.append(one)
            one.worker.start()
        self._peers = peers

    def _count_pods(self) -> int:
        page = self._api.get(resources.PODS_PATH, {"limit": "1"}, resources.METADATA_LIST, decode.page)
        try:
            return len(page.get("items") or []) + int((page.get("metadata") or {}).get("remainingItemCount") or 0)
        except (AttributeError, TypeError, ValueError):
            return PEERS_MAX + 1

    def _lacks_owners(self) -> bool:
        """There are controllers to ask for that were not asked for yet: with them the snapshot says at once what is so."""
        with self._lock:
            return self._store.lacks_owners(self._owners_due_s)

    def _find_owners(self, worker: Worker) -> None:
        """Ask for the controllers above ReplicaSets and Jobs, for a limited time: until they are known their names are guessed from
        theirs."""
        end_s = watch.monotonic_s() + _OWNERS_BUDGET_S
        with self._lock:
            wanted = self._store.wanted_owners()
        self._owners_due_s = {one.uid: self._owners_due_s[one.uid] for one in wanted if one.uid in self._owners_due_s}
        for one in wanted:
            now_s = watch.monotonic_s()
            if worker.is_stopping() or now_s >= end_s:
                return
            if now_s >= self._owners_due_s.get(one.uid, 0.0) and not self._find_owner(one):
                return

    def _find_owner(self, one: WantedOwner) -> bool:
        """False: it is of no use to ask for another now."""
        self._owners_due_s[one.uid] = watch.monotonic_s() + _RETRY_S
        try:
            owner: Owner | None = _owner_of(self._api.get(resources.owner_path(one), {}, resources.METADATA, decode.one))
        except Refused as error:
            # 404: gone since; its name is all there will ever be.
            self._owner_error = (
                "" if error.status == 404 else f"{error}; allow get of replicasets.apps and jobs.batch to the agent's service account"
            )
            with self._lock:
                if error.status == 404:
                    self._store.give_up_owner(one.uid)
            return error.status == 404
        except BadObject:
            return True
        except KubernetesError as error:
            self._owner_error = str(error)
            return False
        self._owner_error = ""
        with self._lock:
            self._store.set_owner(one.uid, owner)
            self._note()
        return True
