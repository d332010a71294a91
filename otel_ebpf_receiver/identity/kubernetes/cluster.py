"""The cluster, followed: all watches, the owners they lack, and a new snapshot for the directory whenever something changed.

It opens no socket and no thread of its own: `client` and `watch` do. Snapshots are built at once when a list has come, else at most twice
a second however much happens. One worker builds, another asks: a snapshot waits for an answer, but not for long.
"""

from __future__ import annotations

import logging
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
"""How long the first snapshot waits for the slowest answer, so that Resources are whole from the start."""
_OWNERS_WAIT_S = 0.5
"""The same for later ones and the owners of new pods."""
_RETRY_S = 30.0
_OWNERS_RETRY_S = 5.0
_FAULT_RETRY_S = 5.0
_LOG = logging.getLogger(__name__)
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
    faults: Mapping[str, str]
    """What failed in here and is tried again: what, and why."""
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
        faults = [f"{what}: {error}" for what, error in self.faults.items()]
        return (*lines, *([f"owners: {self.owner_error}"] if self.owner_error else []), *faults)

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
        self._worker, self._asker = Worker("k8s-snapshot", self._run), Worker("k8s-questions", self._ask)
        self._is_changed = False
        self._due_s = 0.0
        """No snapshot before that."""
        self._peers_due_s = 0.0
        self._owners_due_s: dict[str, float] = {}
        """When to ask again for those that were asked for and are not known yet, by uid."""
        self._refused_s = 0.0
        """Until then it is of no use to ask for any."""
        self._lacking_s = 0.0
        """Since when there are some that were not asked for yet; 0: there are none."""
        self._owner_error = self._peers_error = ""
        self._faults: Mapping[str, str] = {}
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
        if self._peers == "pods":
            self._watches.append(self._peer_watch())
        for one in list(self._watches):
            one.worker.start()
        self._worker.start()
        self._asker.start()

    def stop(self, seconds: float = 2.0) -> None:
        """Ends everything; what waits for a silent server is left behind after `seconds`."""
        with self._lock:
            self._asker.stop()
        self._worker.stop()
        for one in self._watches:
            one.stop()
        end_s = watch.monotonic_s() + seconds
        for worker in (self._worker, *(one.worker for one in self._watches), self._asker):
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
            self._owner_error if self._store.wants_owners else "",
            self._peers_error,
            self._faults,
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
            self._due_s = self._peers_due_s = 0.0
            if kind == store.PODS and not self._directory.snapshot.is_current:
                # Whoever is new waits for the snapshot with these pods.
                self._directory.snapshot = replace(self._directory.snapshot, is_current=True)
        self._worker.wake()
        if self._peers == "auto":
            self._asker.wake()

    def apply(self, kind: str, uid: str, value: Any | None) -> None:
        """Of `watch.Sink`."""
        with self._lock:
            self._is_changed |= self._store.apply(kind, uid, value, watch.unix_ns())

    def settled(self, kind: str) -> None:
        """Of `watch.Sink`."""
        if not self._is_changed:
            return
        now_s = watch.monotonic_s()
        if self._snapshots_total and now_s >= self._due_s and self._owners_wait_s(now_s) <= 0:
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
        first_s = watch.monotonic_s() + _FIRST_WAIT_S
        while not worker.is_stopping() and not self._has_answers() and (left_s := first_s - watch.monotonic_s()) > 0:
            worker.pause(left_s)
        # The node itself is known, though the server may have said nothing yet.
        self._is_changed = True
        while not worker.is_stopping():
            if self._wait_s() <= 0:
                # The first one has waited for everybody already, and until it is there nobody in the node's network is known.
                worker.pause(_TOGETHER_S if self._snapshots_total else 0.0)
                if self._wait_s() <= 0:
                    self._build()
            worker.pause(self._wait_s())

    def _has_answers(self) -> bool:
        lacks_owners = self._lacks_owners(watch.monotonic_s())
        is_decided = self._peers != "auto" or bool(self._peers_error)
        return is_decided and not lacks_owners and all(one.state.is_synced or one.state.error for one in self._watches)

    def _wait_s(self) -> float:
        """How long there is nothing to build."""
        now_s = watch.monotonic_s()
        if self._is_changed:
            return max(self._due_s - now_s, self._owners_wait_s(now_s))
        return self._due_s + _FAULT_RETRY_S - now_s if self._faults else _RETRY_S

    def _build(self) -> None:
        """A new snapshot, and its addresses to whoever wants them; of threads that come together one does it for all."""
        with self._building:
            self._due_s = watch.monotonic_s() + _BUILD_INTERVAL_S
            is_changed = self._is_changed
            is_built = is_changed and self._succeeds("snapshot", self._publish)
            if is_changed and not is_built:
                self._is_changed = True
                self._due_s += _FAULT_RETRY_S
            self._succeeds("addresses", self._tell_addresses)
            # Only now: whoever waits for the first one may count on what follows from the addresses.
            self._snapshots_total += is_built

    def _publish(self) -> None:
        phase = next(one.phase for one in self._watches if one.kind == store.PODS)
        with self._lock:
            self._is_changed = False
            is_current = phase in (Phase.STARTING, Phase.WATCHING) or store.PODS in self._listed
            self._directory.snapshot = self._store.build(watch.unix_ns(), is_current=is_current)
            self._listed = frozenset()
            selection = self._store.selection()
        if selection != self.selection:
            self.selection = selection

    def _tell_addresses(self) -> None:
        addresses = self._store.node_addresses
        if addresses != self._node_addresses:
            self.on_addresses(addresses)
            self._node_addresses = addresses

    def _succeeds(self, what: str, do: Callable[[], None]) -> bool:
        """Whatever fails ends no thread: the status tells of it until it succeeds, and whoever does it tries again."""
        fault = ""
        try:
            do()
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            if what not in self._faults:
                _LOG.exception("%s failed, to be tried again", what)
            self._worker.wake()
        if fault != self._faults.get(what, ""):
            with self._lock:
                others = {one: text for one, text in self._faults.items() if one != what}
                self._faults = {**others, what: fault} if fault else others
        return not fault

    def _ask(self, worker: Worker) -> None:
        while not worker.is_stopping():
            if self._succeeds("questions", self._ask_all):
                peers_s = self._peers_due_s - watch.monotonic_s() if self._peers == "auto" else _RETRY_S
                worker.pause(min(peers_s, self._next_owner()[1]))
            else:
                worker.pause(_FAULT_RETRY_S)

    def _ask_all(self) -> None:
        """Everything that watches do not tell, one question at a time."""
        while not self._asker.is_stopping():
            if self._peers == "auto" and watch.monotonic_s() >= self._peers_due_s:
                self._decide_peers()
            owner, wait_s = self._next_owner()
            if owner and wait_s <= 0:
                self._find_owner(owner)
            self._worker.wake()
            if wait_s > 0:
                return

    def _decide_peers(self) -> None:
        """Once the server has said how many pods there are: watch them all, or be content with what backs a Service."""
        peers: Peers = "auto"
        self._peers_due_s = watch.monotonic_s() + _RETRY_S
        try:
            peers = "pods" if self._count_pods() <= PEERS_MAX else "services"
        except KubernetesError as error:
            self._peers_error = str(error)
            if isinstance(error, Refused) and error.status == 403:
                peers = "services"
        if peers == "pods":
            one = self._peer_watch()
            with self._lock:
                if self._asker.is_stopping():
                    return
                one.worker.start()
                self._watches.append(one)
        self._peers = peers

    def _peer_watch(self) -> Watch:
        return Watch(self._api, resources.peers(self._options.node, self._options.cluster.wanted), self, self._timing)

    def _count_pods(self) -> int:
        page = self._api.get(resources.PODS_PATH, {"limit": "1"}, resources.METADATA_LIST, decode.page)
        try:
            return len(page.get("items") or []) + int((page.get("metadata") or {}).get("remainingItemCount") or 0)
        except (AttributeError, TypeError, ValueError):
            return PEERS_MAX + 1

    def _lacks_owners(self, now_s: float) -> bool:
        """There are controllers that were not asked for yet: they are now. With them a snapshot says at once what is so."""
        with self._lock:
            lacks = now_s >= self._refused_s and self._store.lacks_owners(self._owners_due_s)
            if not lacks:
                self._lacking_s = 0.0
            elif not self._lacking_s:
                self._lacking_s = now_s
                self._asker.wake()
            return lacks

    def _owners_wait_s(self, now_s: float) -> float:
        """How long a snapshot may wait for controllers yet. Until they are known their names are guessed from those below them."""
        return self._lacking_s + _OWNERS_WAIT_S - now_s if self._lacks_owners(now_s) else 0.0

    def _next_owner(self) -> tuple[WantedOwner | None, float]:
        """Whom to ask for next, and in how many seconds: whoever was not asked for yet, else whoever was not for the longest time."""
        now_s = watch.monotonic_s()
        with self._lock:
            wanted = {one.uid: one for one in self._store.wanted_owners()}
            self._owners_due_s = {uid: due_s for uid, due_s in self._owners_due_s.items() if uid in wanted}
            if not wanted:
                self._owner_error, self._lacking_s = "", 0.0
                return None, _RETRY_S
            uid = min(wanted, key=lambda uid: self._owners_due_s.get(uid, 0.0))
            due_s = max(self._refused_s, self._owners_due_s.get(uid, 0.0))
            if due_s > now_s:
                self._lacking_s = 0.0
            return wanted[uid], due_s - now_s

    def _find_owner(self, one: WantedOwner) -> None:
        try:
            owner: Owner | None = _owner_of(self._api.get(resources.owner_path(one), {}, resources.METADATA, decode.one))
        except BadObject:
            with self._lock:
                self._owners_due_s[one.uid] = watch.monotonic_s() + _RETRY_S
        except KubernetesError as error:
            self._put_off(one, error)
        else:
            with self._lock:
                self._owner_error = ""
                self._store.set_owner(one.uid, owner)
                self._is_changed = True

    def _put_off(self, one: WantedOwner, error: KubernetesError) -> None:
        """What is refused for one is for all: nobody is asked for until that may have changed."""
        status, after_s = (error.status, error.retry_after_s) if isinstance(error, Refused) else (0, 0.0)
        remedy = "; allow get of replicasets.apps and jobs.batch to the agent's service account" if status == 403 else ""
        pause_s = max(after_s, watch.around(self._timing.forbidden_s) if status == 403 else _OWNERS_RETRY_S)
        now_s = watch.monotonic_s()
        with self._lock:
            if status == 404:
                # Gone since; its name is all there will ever be.
                self._owner_error = ""
                self._store.give_up_owner(one.uid)
                return
            self._owner_error = f"{error}{remedy}"
            self._refused_s = now_s + pause_s
            self._owners_due_s[one.uid] = now_s + (pause_s if status in (403, 429) else _RETRY_S)
