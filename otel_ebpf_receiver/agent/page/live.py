"""The live page put together: a watcher of the line, whose numbers go to the hub's listeners. Belongs to the pipeline's thread.

While nobody listens a batch costs one look at an empty tuple.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from otel_ebpf_receiver.agent.once import Once
from otel_ebpf_receiver.agent.page import stream
from otel_ebpf_receiver.agent.page.stream import Thinned
from otel_ebpf_receiver.agent.page.traffic import Traffic
from otel_ebpf_receiver.sources.http.columns import HttpView
from otel_ebpf_receiver.sources.source import Source, View
from otel_ebpf_receiver.status.counters import Counters, Instrument, Kind
from otel_ebpf_receiver.status.page.files import pages
from otel_ebpf_receiver.status.page.hub import Hub, Listener
from otel_ebpf_receiver.status.pages import Open, Page

STATE, EXCHANGES = "state", "exchanges"
TICK_S = 1.0
FLUSH_S = 0.2
LINGER_S = 30.0
"""So long after the last listener left the last minute is kept: a page that is loaded anew starts where it was."""
PREFIX = "otel_ebpf_receiver.page"


class LivePage:
    """A `Watcher`. `health` tells what the agent says of itself; it is asked once a second while somebody listens."""

    def __init__(self, health: Callable[[], Mapping[str, object]]) -> None:
        self._health = health
        self._hub = Hub(_check)
        self._traffic: Traffic | None = None
        self._once = Once()
        self._streams: dict[Listener, Thinned] = {}
        self._tick_s = self._flush_s = self._seen_s = self._linger_s = 0.0
        self.shown = 0
        self.pages: Mapping[str, Page] = pages()
        self.streams: Mapping[str, Open] = {
            "/page/state": lambda parameters: self._hub.open(STATE, parameters),
            "/page/exchanges": lambda parameters: self._hub.open(EXCHANGES, parameters),
        }

    def register(self, counters: Counters) -> None:
        """Puts its own counts among the agent's."""
        listeners = Instrument(f"{PREFIX}.listeners", "Streams of the live page that are open.", "{stream}", Kind.GAUGE)
        counters.observe(listeners, lambda: {(): len(self._hub.listeners)})
        refused = Instrument(f"{PREFIX}.refused", "Streams of the live page that were refused: as many as may were open.", "{stream}")
        counters.observe(refused, lambda: {(): self._hub.refused})
        dropped = Instrument(f"{PREFIX}.dropped", "Messages of the live page that a listener was too slow for.", "{message}")
        counters.observe(dropped, lambda: {(): self._hub.dropped})
        shown = Instrument(f"{PREFIX}.exchanges", "Exchanges shown in the live page's stream.", "{exchange}")
        counters.observe(shown, lambda: {(): self.shown})

    def watch(self, source: Source, view: View) -> None:
        """Called by the line with every admitted batch."""
        if self._traffic is None:
            return
        http = cast(HttpView, view)
        rows = self._once.rows(http)
        ends = self._traffic.add(http, rows)
        for thinned in self._streams.values():
            self.shown += thinned.add(http, rows, ends, self._traffic.nodes.things)

    def step(self, now_s: float) -> None:
        """To be called several times a second with the monotonic time, also when there is no traffic."""
        listeners = self._hub.listeners
        if not listeners and self._traffic is None:
            return
        if listeners:
            self._linger_s = now_s + LINGER_S
            if self._traffic is None:
                self._traffic, self._once, self._tick_s = Traffic(), Once(), now_s + TICK_S
        elif now_s >= self._linger_s:
            self._traffic, self._once = None, Once()
            self._streams.clear()
            return
        self._follow(listeners)
        self._tick(listeners, now_s)
        self._flush(now_s)

    def stop(self) -> None:
        """Ends every stream."""
        self._hub.close()

    def _follow(self, listeners: tuple[Listener, ...]) -> None:
        """Takes in who came and who left."""
        self._streams = {one: self._streams.get(one) or Thinned(one.parameters) for one in listeners if one.topic == EXCHANGES}
        new = [one for one in listeners if one.topic == STATE and one.is_new]
        if new:
            _put(new, "full", self._state(with_history=True))
        for one in new:
            one.is_new = False

    def _tick(self, listeners: tuple[Listener, ...], now_s: float) -> None:
        assert self._traffic is not None
        if now_s < self._tick_s:
            return
        while now_s >= self._tick_s:
            self._traffic.tick()
            self._tick_s += TICK_S
        watching = [one for one in listeners if one.topic == STATE]
        if watching:
            _put(watching, "state", self._state(with_history=False))

    def _state(self, *, with_history: bool) -> dict[str, Any]:
        assert self._traffic is not None
        return {"traffic": self._traffic.tell(with_history=with_history), "health": self._health()}

    def _flush(self, now_s: float) -> None:
        elapsed_s, self._seen_s = min(now_s - self._seen_s, 1.0), now_s
        for thinned in self._streams.values():
            thinned.refill(elapsed_s, len(self._streams))
        if now_s < self._flush_s:
            return
        self._flush_s = now_s + FLUSH_S
        for listener, thinned in self._streams.items():
            found = thinned.take()
            if found is not None:
                _put([listener], "exchanges", found)


def _check(topic: str, parameters: Mapping[str, str]) -> None:
    if topic == EXCHANGES:
        stream.check(parameters)


def _put(listeners: list[Listener], event: str, data: Mapping[str, object]) -> None:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, default=str)
    for one in listeners:
        one.put(event, text)
