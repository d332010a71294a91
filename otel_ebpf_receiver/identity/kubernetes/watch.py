"""One collection of the API server, followed: listed in pages, watched from there on, for as long as the agent runs.

It gives objects to a sink and keeps a state that a user can read. It never gives up and never hurries: exponential back-off with jitter,
`Retry-After` honoured, a new list only where the server says that the old version is gone. What was known stays known meanwhile.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from otel_ebpf_receiver import memory
from otel_ebpf_receiver.errors import KubernetesError
from otel_ebpf_receiver.identity.kubernetes import decode
from otel_ebpf_receiver.identity.kubernetes.client import Api, Refused, Stream, Unreachable
from otel_ebpf_receiver.identity.kubernetes.objects import BadObject
from otel_ebpf_receiver.identity.kubernetes.resources import Resource

_LOG = logging.getLogger(__name__)
_GONE = 410


class Phase(enum.Enum):
    """What a watch is doing."""

    STARTING = "starting"
    WATCHING = "watching"
    RETRYING = "retrying"
    """The server cannot be reached or does not serve; the last good state is kept."""
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class State:
    """A watch as its user sees it; replaced whole. Times are CLOCK_MONOTONIC seconds."""

    phase: Phase = Phase.STARTING
    error: str = ""
    is_synced: bool = False
    """All objects were known at least once."""
    contact_s: float = 0.0
    """When the server last said something, even that nothing changed."""
    lists_total: int = 0
    watches_total: int = 0
    events_total: int = 0
    bad_objects_total: int = 0
    failures_total: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Watches end after a time between `watch_low_s` and `watch_high_s`, so that all agents do not come at once."""

    back_off_low_s: float = 1.0
    back_off_high_s: float = 30.0
    forbidden_s: float = 60.0
    watch_low_s: float = 300.0
    watch_high_s: float = 600.0
    silence_s: float = 30.0
    """Beyond the end that was asked for."""
    gather_s: float = 1.5
    """Events that come within so long after another are read together. Less than exchanges wait for a name."""
    hurried_s: float = 0.25
    """The same while somebody waits for a name (`Watch.hurry`)."""
    hurry_s: float = 2.0
    """For so long somebody waits, as far as it is known here."""
    settle_s: float = 0.5
    """Where events come without a pause the sink is told to make something of them this often."""
    outage_s: float = 60.0
    """After so long without an answer everything is listed anew: the server may be another one."""


class Sink(Protocol):
    """Takes what a watch learns."""

    def replace(self, kind: str, objects: Mapping[str, Any]) -> None: ...

    def apply(self, kind: str, uid: str, value: Any | None) -> None: ...

    def settled(self, kind: str) -> None:
        """No more comes for now than what was applied."""

    def changed(self, kind: str) -> None:
        """The state changed."""


class Worker:
    """A thread with a way to stop it and to wake it. What it runs asks `is_stopping` and waits with `pause` alone."""

    def __init__(self, name: str, run: Callable[[Worker], None]) -> None:
        self._is_stopping = False
        # hot: benchmarks/identity.py. Released to wake: waiting for an Event takes ten times as long.
        self._sleep = threading.Lock()
        self._sleep.acquire()
        self._thread = threading.Thread(target=run, args=(self,), name=name, daemon=True)

    def is_stopping(self) -> bool:
        return self._is_stopping

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """End the current `pause`, or the next."""
        with contextlib.suppress(RuntimeError):
            # It was woken already.
            self._sleep.release()

    def pause(self, seconds: float) -> bool:
        """Wait for so long, or until woken. True when woken."""
        return self._sleep.acquire(timeout=max(seconds, 0.0))

    def stop(self) -> None:
        """Ask it to end."""
        self._is_stopping = True
        self.wake()

    def join(self, seconds: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(seconds)


class Watch:
    """Follows one resource. `run` is the body of its thread."""

    def __init__(self, api: Api, resource: Resource, sink: Sink, timing: Timing | None = None) -> None:
        self._api = api
        self._resource = resource
        self._sink = sink
        self._timing = timing or Timing()
        self._stream: Stream | None = None
        self._version = ""
        self._delay_s = 0.0
        self._refusals = 0
        self._state = State()
        self._events_total = 0
        self._contact_s = 0.0
        self._is_gathering = False
        self._hurried_s = -self._timing.hurry_s
        self.worker = Worker(f"k8s-{resource.kind}", self.run)

    @property
    def kind(self) -> str:
        return self._resource.kind

    @property
    def phase(self) -> Phase:
        """What it is doing. Any thread may ask."""
        return self._state.phase

    @property
    def state(self) -> State:
        """How it is doing. Any thread may ask."""
        return replace(self._state, events_total=self._events_total, contact_s=self._contact_s)

    def hurry(self) -> None:
        """Somebody waits for a name: read at once what has come, and what comes next sooner. Any thread may ask, as often as it likes."""
        self._hurried_s = time.monotonic()
        if self._is_gathering:
            self._is_gathering = False
            self.worker.wake()

    def stop(self) -> None:
        """End the watch; safe twice, and before it was started."""
        self.worker.stop()
        if self._stream:
            self._stream.stop()

    def run(self, worker: Worker) -> None:
        """Until stopped: list, watch, and where something fails wait and go on."""
        while not worker.is_stopping():
            try:
                if not self._version:
                    self._list(worker)
                if not worker.is_stopping():
                    self._watch(worker)
            except (KubernetesError, BadObject) as error:
                self._fail(worker, error)
            except Exception as error:
                if worker.is_stopping():
                    break
                # The outermost loop of the thread: whatever it is, the agent names what it still can.
                _LOG.exception("watch failed", extra={"resource": self.kind})
                self._fail(worker, Unreachable(f"{type(error).__name__}: {error}"))
        self._tell(phase=Phase.STOPPED)

    def _list(self, worker: Worker) -> None:
        found: dict[str, Any] = {}
        token, version = "", ""
        self._tell(lists_total=self._state.lists_total + 1)
        while not worker.is_stopping():
            query = {**self._resource.query, "limit": str(self._resource.page), **({"continue": token} if token else {})}
            with _no_collection():
                page = self._api.get(self._resource.path, query, self._resource.list_accept, decode.page)
                token, version = _place(page)
                self._take(page, found)
            self._contact_s = time.monotonic()
            if not token:
                self._sink.replace(self.kind, found)
                self._version = version
                self._recover(is_synced=True)
                memory.give_back()
                return

    def _take(self, page: Mapping[str, Any], found: dict[str, Any]) -> None:
        for raw in page.get("items") or []:
            try:
                value = self._resource.trim(raw)
                found[value.uid] = value
            except BadObject as error:
                self._bad(error)

    def _watch(self, worker: Worker) -> None:
        timing = self._timing
        seconds = random.uniform(timing.watch_low_s, timing.watch_high_s)
        query = {
            **self._resource.query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        start_s, before = time.monotonic(), self._events_total
        settled_s = start_s
        stream = self._api.watch(self._resource.path, query, self._resource.watch_accept, seconds + timing.silence_s)
        self._stream = stream
        self._tell(watches_total=self._state.watches_total + 1)
        self._recover()
        try:
            # Whoever stopped the worker before the stream was there could not stop the stream.
            for lines in iter(()) if worker.is_stopping() else stream.lines():
                for line in lines:
                    if worker.is_stopping():
                        return
                    if line:
                        self._event(line)
                is_quiet = stream.is_quiet()
                if is_quiet or time.monotonic() - settled_s > timing.settle_s:
                    self._sink.settled(self.kind)
                    if is_quiet:
                        self._gather(worker)
                    settled_s = time.monotonic()
        finally:
            self._stream = None
            stream.close()
            self._sink.settled(self.kind)
        if time.monotonic() - start_s < 1.0 and self._events_total == before and not worker.is_stopping():
            raise Unreachable("the watch ended as soon as it began")
        self._delay_s, self._refusals = 0.0, 0

    def _gather(self, worker: Worker) -> None:
        """Let events come together."""
        # hot: benchmarks/identity.py. Woken for each event alone, a thread costs more than the event.
        timing = self._timing
        self._is_gathering = True
        # Asked only now, so that whoever hurries meanwhile is seen here or sees that there is somebody to wake.
        if time.monotonic() - self._hurried_s < timing.hurry_s:
            self._is_gathering = False
            worker.pause(timing.hurried_s)
        else:
            worker.pause(timing.gather_s)
            self._is_gathering = False

    def _event(self, line: bytes) -> None:
        try:
            event = decode.event(line)
            kind, raw = event["type"], event["object"]
            if kind == "ERROR":
                raise Refused(int(raw.get("code") or 0), str(raw.get("message") or raw.get("reason") or "error in the watch"))
            version = (raw.get("metadata") or {}).get("resourceVersion")
            if kind in ("ADDED", "MODIFIED", "DELETED"):
                self._apply(kind, raw)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._bad(error)
            return
        if isinstance(version, str) and version:
            self._version = version
        # Only what a watch brings proves that it works: a server may open each and then refuse.
        self._delay_s, self._refusals = 0.0, 0
        self._contact_s = time.monotonic()
        self._events_total += 1

    def _apply(self, kind: str, raw: Mapping[str, Any]) -> None:
        try:
            value = self._resource.trim(raw)
        except BadObject as error:
            uid = (raw.get("metadata") or {}).get("uid")
            if kind != "DELETED" or not isinstance(uid, str):
                self._bad(error)
                return
            self._sink.apply(self.kind, uid, None)
        else:
            self._sink.apply(self.kind, value.uid, None if kind == "DELETED" else value)

    def _bad(self, error: Exception) -> None:
        if not self._state.bad_objects_total:
            _LOG.warning(
                "objects of the API server that cannot be understood are skipped", extra={"resource": self.kind, "error": str(error)}
            )
        self._tell(bad_objects_total=self._state.bad_objects_total + 1)

    def _recover(self, *, is_synced: bool = False) -> None:
        if self._state.phase not in (Phase.WATCHING, Phase.STARTING):
            _LOG.info("watch goes on", extra={"resource": self.kind})
        self._contact_s = time.monotonic()
        self._tell(phase=Phase.WATCHING, error="", is_synced=is_synced or self._state.is_synced)

    def _fail(self, worker: Worker, error: KubernetesError | BadObject) -> None:
        """Say what is wrong, and wait as long as it deserves."""
        if worker.is_stopping():
            return
        timing, status = self._timing, error.status if isinstance(error, Refused) else 0
        silent_s = time.monotonic() - self._contact_s
        is_first = not self._delay_s
        self._delay_s = min(max(2 * self._delay_s, timing.back_off_low_s), timing.back_off_high_s)
        wait_s = self._delay_s * random.uniform(0.5, 1.0)
        phase = {401: Phase.UNAUTHORIZED, 403: Phase.FORBIDDEN}.get(status, Phase.RETRYING)
        if status == _GONE:
            # The usual end of an old version, and no fault: listed anew at once, unless that helped nothing the last time.
            self._version, wait_s = "", 0.0 if is_first else wait_s
        elif status == 403:
            wait_s = around(timing.forbidden_s)
        elif status == 401:
            with contextlib.suppress(KubernetesError):
                self._api.renew()
        elif isinstance(error, Refused) and status != 429:
            self._refusals += 1
        if self._refusals >= 2 or silent_s > timing.outage_s:
            self._version, self._refusals = "", 0
        wait_s = max(wait_s, error.retry_after_s if isinstance(error, Refused) else 0.0)
        self._report(phase, self._text(status, error))
        self._wait(worker, wait_s)

    def _text(self, status: int, error: Exception) -> str:
        if status == 403:
            return f"{error}; allow list and watch of {self._resource.permission} to the agent's service account"
        if status == 401:
            return f"{error}; the token was read again"
        return str(error)

    def _report(self, phase: Phase, text: str) -> None:
        if phase is not self._state.phase:
            _LOG.warning("watch interrupted", extra={"resource": self.kind, "state": phase.value, "error": text})
        self._tell(phase=phase, error=text, failures_total=self._state.failures_total + 1)

    def _wait(self, worker: Worker, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while not worker.is_stopping() and (left_s := end_s - time.monotonic()) > 0:
            worker.pause(left_s)

    def _tell(self, **changes: Any) -> None:
        old, self._state = self._state, replace(self._state, **changes)
        if (old.phase, old.is_synced) != (self._state.phase, self._state.is_synced):
            self._sink.changed(self.kind)


def around(seconds: float) -> float:
    """About so long, so that not all agents come at once."""
    return seconds * random.uniform(0.75, 1.25)


def mutex() -> threading.Lock:
    """For whoever is called by several workers."""
    return threading.Lock()


def unix_ns() -> int:
    """The wall clock."""
    return time.time_ns()


def monotonic_s() -> float:
    """The clock of `State`."""
    return time.monotonic()


def _place(page: Any) -> tuple[str, str]:
    """The continue token and the version of a list. Raises Unreachable for what is none: taken as empty it would wipe all out."""
    metadata = page.get("metadata") if isinstance(page, dict) else None
    if not isinstance(metadata, dict) or not metadata.get("resourceVersion") or not isinstance(page.get("items") or [], list):
        raise Unreachable("the answer is no list of the API")
    return metadata.get("continue") or "", metadata["resourceVersion"]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """A page is thousands of objects that all go at once: looking for cycles among them takes longer than parsing them.

    Of several threads the one that switched the collector off switches it on again.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
