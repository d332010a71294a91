"""The taps: one packet socket per watched link, with the kernel's entry program as its filter.

The filter is attached before the socket is bound, so no packet is ever queued, and it returns 0 for every packet, so none ever will be.
No device is made promiscuous and no device is changed. A tap that cannot be opened is named and tried again; the others go on.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import errno
import logging
import os
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from otel_ebpf_receiver.capture.links import Link
from otel_ebpf_receiver.capture.select import Role, rank, role, select
from otel_ebpf_receiver.config.schema import Capture
from otel_ebpf_receiver.errors import CaptureError

ETH_P_ALL = 3
_ADDRESS = struct.Struct("=HHiHBB8s")
"""struct sockaddr_ll of linux/if_packet.h. Python's own bind takes a name, which may belong to another link by then."""
_ONE_WAY_FLOWS = 2
"""A single one-sided connection may be one that was half over when the tap was attached."""
_CLOSERS = 32
_LOG = logging.getLogger(__name__)


class Programs(Protocol):
    """What a tap needs of the loaded kernel programs."""

    def attach(self, sock: socket.socket) -> None: ...

    def set_tap(self, ifindex: int, domain: int | None = None) -> bool: ...

    def forget_tap(self, ifindex: int) -> None: ...

    def tap_counters(self, ifindex: int) -> dict[str, int]: ...


@dataclass(frozen=True, slots=True)
class Tap:
    """One watched link. `sock` is None when it could not be attached; `error` says why."""

    link: Link
    role: Role
    rank: int
    sock: socket.socket | None = None
    error: str = ""
    is_one_way: bool = False

    @property
    def state(self) -> str:
        """`failed`, `one-way` or `attached`."""
        return "failed" if self.sock is None else "one-way" if self.is_one_way else "attached"


def is_one_way(counters: Mapping[str, int]) -> bool:
    """True for a tap that shows only one direction of its connections, as plug-ins that redirect past the host end do."""
    return counters.get("one_sided", 0) >= _ONE_WAY_FLOWS and not counters.get("two_sided", 0)


def open_tap(programs: Programs, index: int) -> socket.socket:
    """A packet socket on the link `index` whose filter is the entry program. Raises OSError or CaptureError."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        programs.attach(sock)
        _bind(sock, index)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, index: int) -> None:
    address = _ADDRESS.pack(socket.AF_PACKET, socket.htons(ETH_P_ALL), index, 0, 0, 0, bytes(8))
    if ctypes.CDLL(None, use_errno=True).bind(sock.fileno(), address, len(address)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Taps:
    """What is attached. `reconcile` is called by one thread at a time; everything that others read is replaced whole."""

    def __init__(self, programs: Programs, capture: Capture) -> None:
        self._programs = programs
        self._capture = capture
        self._taps: Mapping[int, Tap] = {}
        self._lock = threading.Lock()
        self._is_stopped = False
        self._up: frozenset[int] = frozenset()
        self.attached_total = 0
        self.detached_total = 0
        self.failed_total = 0

    @property
    def taps(self) -> Mapping[int, Tap]:
        """All taps by the link's index, failed ones included; never changed in place."""
        return self._taps

    @property
    def ranks(self) -> dict[int, int]:
        """Rank by index (see `select.rank`)."""
        return {index: tap.rank for index, tap in self._taps.items()}

    def reconcile(self, links: Mapping[int, Link], gone: frozenset[int], up: frozenset[int] = frozenset()) -> None:
        """Attach what is wanted and not there, detach what is there and not wanted.

        `gone`: indices whose link went away since the last call, though another of that index may exist by now. `up`: pairs that are uplinks.
        """
        with self._lock:
            if self._is_stopped:
                return
            self._up = up
            wanted = select(links, self._capture.taps, self._capture.interfaces, up)
            taps = dict(self._taps)
            for index in [index for index in taps if index not in wanted or index in gone]:
                self._detach(taps.pop(index))
            for index in sorted(wanted):
                tap = self._renew(taps.get(index), links[index])
                if tap:
                    taps[index] = tap
            self._taps = taps

    def review(self) -> None:
        """Try again what could not be attached, and note which taps show one direction only. To be called every few seconds."""
        with self._lock:
            if self._is_stopped:
                return
            reviewed = {index: self._reviewed(tap) for index, tap in self._taps.items()}
            self._taps = {index: tap for index, tap in reviewed.items() if tap}

    def stop(self) -> None:
        """Detach everything; a later `reconcile` does nothing. May be called twice."""
        with self._lock:
            self._is_stopped = True
            sockets = [tap.sock for tap in self._taps.values() if tap.sock]
        # Closing a packet socket waits for a grace period of the kernel: side by side they wait for the same one.
        with concurrent.futures.ThreadPoolExecutor(_CLOSERS, thread_name_prefix="detach") as pool:
            list(pool.map(socket.socket.close, sockets))

    def _renew(self, old: Tap | None, link: Link) -> Tap | None:
        """The tap as it should be now; None when the link went away in this instant."""
        if old is None:
            return self._attach(link, "")
        known = self._tap(link)
        return (
            old
            if known == replace(old, sock=None, error="", is_one_way=False)
            else replace(old, link=link, role=known.role, rank=known.rank)
        )

    def _reviewed(self, tap: Tap) -> Tap | None:
        if tap.sock is None:
            return self._attach(tap.link, tap.error)
        one_way = is_one_way(self._programs.tap_counters(tap.link.index))
        if one_way and not tap.is_one_way:
            _LOG.warning("tap is one-way: it shows one direction only, and nothing is reported from it", extra={"interface": tap.link.name})
        return tap if one_way == tap.is_one_way else replace(tap, is_one_way=one_way)

    def _attach(self, link: Link, known_error: str) -> Tap | None:
        try:
            self._programs.set_tap(link.index)
            sock = open_tap(self._programs, link.index)
        except (OSError, CaptureError) as error:
            with contextlib.suppress(OSError):
                self._programs.forget_tap(link.index)
            if isinstance(error, OSError) and error.errno in (errno.ENODEV, errno.ENXIO):
                return None
            return self._failed(link, (error.strerror if isinstance(error, OSError) else None) or str(error), known_error)
        self.attached_total += 1
        tap = replace(self._tap(link), sock=sock)
        _LOG.debug("tap attached", extra={"interface": link.name, "role": tap.role.value})
        return tap

    def _tap(self, link: Link) -> Tap:
        """What a tap on the link would be."""
        is_uplink = link.index in self._up
        return Tap(link, role(link, is_uplink=is_uplink), rank(link, is_uplink=is_uplink))

    def _failed(self, link: Link, error: str, known_error: str) -> Tap:
        self.failed_total += 1
        if error != known_error:
            _LOG.error("tap cannot be attached", extra={"interface": link.name, "error": error})
        return replace(self._tap(link), error=error)

    def _detach(self, tap: Tap) -> None:
        if not tap.sock:
            return
        tap.sock.close()
        self.detached_total += 1
        with contextlib.suppress(OSError):
            self._programs.forget_tap(tap.link.index)
        _LOG.debug("tap detached", extra={"interface": tap.link.name})
