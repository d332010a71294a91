"""The map of the program: what exists, in which order it starts, and in which it stops.

The main thread is the pipeline's: it drains, and between two drains does what is due. Threads beside it: one sender per signal and
destination, the link watch, the watches of the Kubernetes API, the status server. Signals end it through `stop`; nothing here turns an error into an exit.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from otel_ebpf_receiver import memory
from otel_ebpf_receiver.agent import cluster, counting, options
from otel_ebpf_receiver.agent.ignored import Ignored
from otel_ebpf_receiver.agent.interval import Interval, Own
from otel_ebpf_receiver.agent.load import Stop
from otel_ebpf_receiver.agent.page import health
from otel_ebpf_receiver.agent.page.live import LivePage
from otel_ebpf_receiver.agent.relief import Relief
from otel_ebpf_receiver.agent.slack import Slack
from otel_ebpf_receiver.agent.watchers import Lines
from otel_ebpf_receiver.capture.links import Link
from otel_ebpf_receiver.capture.select import Role, own_addresses, uplinks
from otel_ebpf_receiver.capture.taps import Taps
from otel_ebpf_receiver.capture.watch import LinkWatch, list_addresses, list_links
from otel_ebpf_receiver.config.schema import Config, TapMode
from otel_ebpf_receiver.export.destination import Destination, LineDestination, Signal
from otel_ebpf_receiver.export.own_books import count_books
from otel_ebpf_receiver.export.queue import Payload
from otel_ebpf_receiver.identity.directory import Behind, Directory, Policy
from otel_ebpf_receiver.identity.static import Statics
from otel_ebpf_receiver.kernel.clock import Clock
from otel_ebpf_receiver.kernel.programs import Programs
from otel_ebpf_receiver.pipeline import Line
from otel_ebpf_receiver.sources.http import source as http_source
from otel_ebpf_receiver.status.counters import Counters
from otel_ebpf_receiver.status.own import OwnTelemetry
from otel_ebpf_receiver.telemetry.names import SCHEMA_URL
from otel_ebpf_receiver.telemetry.sameness import Ranks

if TYPE_CHECKING:
    from otel_ebpf_receiver.identity.kubernetes.client import Access
    from otel_ebpf_receiver.identity.kubernetes.selection import Selection

PAUSE_MS, FULL_PAUSE_MS = 100, 25
"""Pauses between drains: most of what a batch costs does not depend on its size. The ring holds at least 250 ms of 100,000 exchanges a second, so
that even a burst out of silence finds room; a drain that found more than FULL of it is followed by a short pause."""
FULL = 0.3
READ_S = 1.0
"""Kernel counters are read and open requests are walked this often."""
SETTLE_S = 0.5
"""At the end: how long an interval of metrics that is on its way may still take before the last one is made."""
SEND_S = 1.5
"""Of FINISH_S: what is left to the senders when the last interval, where it is larger than a queue, has been handed over."""
FINISH_S = 3.5
"""From SIGTERM to the end of the senders; the rest of the five seconds is for what comes before and after."""
ALIVE_S = 30.0
_BEHIND = {Role.WORKLOAD: Behind.WORKLOAD, Role.NODE: Behind.NODE, Role.LOOPBACK: Behind.LOOPBACK}
_LOG = logging.getLogger(__name__)


class _Spans:
    """A destination as the line's sink of spans."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination

    def offer(self, payload: Payload) -> None:
        self._destination.offer(Signal.TRACES, payload)


class Agent:
    """Everything that runs, around one set of loaded programs. `stack` takes what must be closed however it ends, in the right order."""

    def __init__(self, config: Config, programs: Programs, stack: contextlib.ExitStack, access: Access | None = None) -> None:
        """`access`: the way to the API server; None: Kubernetes is off."""
        self._config, self._programs, self._stack = config, programs, stack
        self._counters = Counters()
        self._clock = Clock()
        # Exporters come before the rest: a wrong certificate or a taken port must be told before anything is attached.
        self._ignored = Ignored(programs)
        stack.callback(self._ignored.close)
        self._destinations = options.destinations(config, self._ignored)
        console = options.console(config)
        self._consoles: list[LineDestination] = [console] if console else []
        self._outlets: list[Destination | LineDestination] = [*self._destinations, *self._consoles]
        instrumented = config.kubernetes.instrumented
        self._identity = Directory(
            Statics(config.services, options.host_attributes(config, is_cluster=access is not None)),
            Policy(instrumented.spans == "drop", instrumented.metrics == "drop"),
            is_cluster=access is not None,
        )
        self._cluster = cluster.follow(config, access, self._identity, own_addresses(list_links(), list_addresses())) if access else None
        source = http_source(options.http_options(config))
        room = config.capture.ring_bytes / source.dtype.itemsize
        self._full = FULL * room
        self._line = Line(
            options.telemetry_options(config, is_cluster=access is not None),
            [(source, programs.transports["http"])],
            self._identity,
            self._clock,
            start_unix_ns=time.time_ns(),
        )
        self._line.sinks = [_Spans(one) for one in self._destinations if Signal.TRACES in one.signals]
        self._page = LivePage(self._health) if config.status.page else None
        self._line.begun = lambda source: programs.open_records(source.kernel, source.dtype)
        self._relief = Relief(room)
        self._slack = Slack(memory.give_back)
        self._line.relief = lambda taken: self._relief.look(taken, time.monotonic())
        self._line.watchers = [*(Lines(one) for one in self._consoles), *([self._page] if self._page else [])]
        self._taps = Taps(programs, config.capture)
        self._links = LinkWatch(self._follow, self._review)
        self._tapping = threading.Lock()
        self._known: tuple[Mapping[int, Link], frozenset[bytes]] = ({}, frozenset())
        """All links, and this node's addresses as the API server tells them. Two threads bring them; guarded by `_tapping`."""
        self._kernel = counting.Kernel(programs)
        metrics = config.telemetry.metrics
        self._interval = Interval(
            self._destinations, self._line, self._own_telemetry, every_s=metrics.interval_s, temporality=metrics.temporality
        )
        self._uid = ""
        self._selection: Selection | None = None
        self._is_ready = False
        self._page_url = ""
        self._start_s = time.time()
        self._alive_s = time.monotonic()

    def _own_telemetry(self, is_delta: bool) -> Own:
        own = OwnTelemetry(
            self._counters, options.own_attributes(self._config), schema_url=SCHEMA_URL, version=options.agent_version(), is_delta=is_delta
        )
        self._stack.callback(own.stop)
        return own.collect

    def start(self) -> None:
        """Exporters, status, kernel filters, taps. Prints the line that says ready when every tap is attached. Raises `AgentError`."""
        counting.register(self._counters, self._kernel, self._line, self._taps, self._interval)
        count_books(self._counters, self._destinations, self._consoles)
        for one in self._outlets:
            self._stack.callback(one.stop)
            one.start()
        self._start_status()
        self._watch(None)
        self._stack.callback(self._taps.stop)
        self._stack.callback(self._links.stop)
        if self._cluster:
            cluster.register(self._counters, self._cluster, self._identity)
            self._cluster.on_addresses = self._place_node
            self._stack.callback(self._cluster.stop)
            self._cluster.start()
        self._links.start()
        self._kernel.read()
        memory.forget_start()
        self._say_ready()

    def _start_status(self) -> None:
        status = self._config.status
        if not (status.enabled or status.page):
            return
        from otel_ebpf_receiver.status.server import StatusServer

        server = StatusServer(
            self._counters,
            is_live=lambda: time.monotonic() - self._alive_s < ALIVE_S,
            is_ready=lambda: self._is_ready,
            missing=lambda: cluster.missing(self._cluster),
            status=self._status,
            host=status.host,
            port=status.port,
            more=self._page.pages if self._page else None,
            streams=self._page.streams if self._page else None,
        )
        self._stack.callback(server.stop)
        if self._page:
            self._page.register(self._counters)
            self._stack.callback(self._page.stop)
            self._page_url = server.url
        server.start()

    def _status(self) -> Mapping[str, object]:
        """What the status page shows; every part of it is replaced whole by its owner."""
        taps = self._taps.taps.values()
        return {
            "version": options.agent_version(),
            "taps": [{"interface": one.link.name, "role": one.role.value, "state": one.state, "error": one.error} for one in taps],
            "kernel": dict(self._kernel.books.counters),
            "exporters": [one.name for one in self._outlets],
            "kubernetes": cluster.shown(self._cluster, self._identity),
        }

    def _health(self) -> Mapping[str, object]:
        """What the live page shows of the agent; asked for by the pipeline's thread."""
        return {
            "version": options.agent_version(),
            "host": socket.gethostname(),
            "started": self._start_s,
            "taps": health.taps(self._taps.taps.values(), self._programs.tap_counters),
            "kernel": health.kernel(self._kernel.books, self._line.counts),
            "exporters": health.exporters(self._destinations, self._consoles),
            "process": health.process(),
        }

    def _follow(self, links: Mapping[int, Link], gone: frozenset[int]) -> None:
        """Links changed."""
        with self._tapping:
            self._known = links, self._known[1]
            self._reconcile(gone)

    def _watch(self, selection: Selection | None) -> None:
        """Tell the kernel which addresses matter: those of the configuration, else those of the selected namespaces, else all."""
        self._selection, named = selection, self._config.capture.addresses
        if selection and not named.include:
            self._programs.watch(only=True, include=selection.wanted, neutral=selection.others, exclude=named.exclude)
        else:
            self._programs.watch(only=bool(named.include), include=named.include, exclude=named.exclude)

    def _place_node(self, addresses: frozenset[bytes]) -> None:
        """The API server says where this node is: a pair that has an address of it leads to other nodes."""
        with self._tapping:
            self._known = self._known[0], addresses
            self._reconcile(frozenset())

    def _review(self) -> None:
        self._taps.review()
        with self._tapping:
            self._reconcile(frozenset())

    def _reconcile(self, gone: frozenset[int]) -> None:
        """Attach, detach, and tell the line and the identity what each tap is."""
        links, addresses = self._known
        self._taps.reconcile(links, gone, uplinks(links, list_addresses(), addresses) if self._cluster else frozenset())
        taps = self._taps.taps
        # A pair counts as its workload's own tap only where somebody can be named behind it. Elsewhere the copies at both ends of a call on
        # one bridge are one exchange, of which the server's side is told.
        own = 0 if self._config.services or self._cluster else 1
        self._line.ranks = Ranks({index: tap.rank + own for index, tap in taps.items()})
        self._line.sees_arrivals = self._sees_all and all(tap.sock and not tap.is_one_way for tap in taps.values())
        self._identity.watch_taps({index: _BEHIND[tap.role] for index, tap in taps.items()})

    @property
    def _sees_all(self) -> bool:
        """Whether the configuration leaves nothing out that comes to this node."""
        capture = self._config.capture
        names, addresses = capture.interfaces, capture.addresses
        return capture.taps.mode is TapMode.AUTO and not (names.include or names.exclude or addresses.include or addresses.exclude)

    def _say_ready(self) -> None:
        taps = self._taps.taps.values()
        for tap in taps:
            if tap.error:
                _LOG.warning("started without a tap", extra={"interface": tap.link.name, "error": tap.error})
        attached = sorted(tap.link.name for tap in taps if tap.sock)
        where = ", ".join(one.name for one in self._outlets) or "nowhere"
        shown = ", ".join(attached[:8]) + (f" and {len(attached) - 8} more" if len(attached) > 8 else "")
        page = f"; page at {self._page_url}" if self._page_url else ""
        print(f"ready: watching {shown or 'no interface yet'}; exporting to {where}{page}", flush=True)
        self._is_ready = True

    def drain_until(self, stop: Stop) -> None:
        """The pipeline's loop."""
        poll = select.poll()
        poll.register(stop.descriptor, select.POLLIN)
        spans_s, read_s = 0.0, 0.0
        while not stop.is_requested:
            self._alive_s = now_s = time.monotonic()
            taken = self._drain()
            if now_s >= spans_s:
                self._line.flush()
                spans_s = now_s + self._config.telemetry.spans.interval_s
            if now_s >= read_s:
                self._kernel.read()
                read_s = now_s + READ_S
            self._interval.step(now_s, time.time_ns())
            if self._page:
                self._page.step(now_s)
            self._relief.rest(time.monotonic())
            self._slack.look(taken, now_s)
            poll.poll(FULL_PAUSE_MS if taken > self._full else PAUSE_MS)

    def _drain(self, *, is_last: bool = False) -> int:
        self._clock.measure()
        if self._cluster and self._cluster.selection is not self._selection:
            self._watch(self._cluster.selection)
        if self._cluster and not self._config.ids.key and (uid := self._cluster.cluster_uid) != self._uid:
            self._uid, self._line.id_key = uid, cluster.id_key(uid)
        return self._line.run(now_ns=time.monotonic_ns(), is_last=is_last)

    def finish(self) -> None:
        """Detach, drain what is left, count what is open, export the last interval, flush. Bounded in time, whatever the backends do."""
        deadline = time.monotonic() + FINISH_S
        self._is_ready = False
        if self._cluster:
            self._cluster.stop(0.0)
        self._links.stop()
        self._taps.stop()
        while self._drain(is_last=True):
            pass
        books = self._kernel.read()
        self._line.flush()
        self._interval.finish(min(deadline, time.monotonic() + SETTLE_S), deadline - SEND_S)
        for one in self._outlets:
            one.finish(deadline)
        for one in self._outlets:
            one.stop()
        _LOG.info("stopped", extra={"open_requests": books.open, "records": self._line.counts.received})
