"""The bpf(2) calls that the agent makes on descriptors it was given: maps, programs, test runs. No bcc, no libbpf.

Commands and structures: include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from dataclasses import dataclass

NR_BPF = {"x86_64": 321, "aarch64": 280}
"""Number of bpf(2) by machine (arch/*/entry/syscalls)."""

LOOKUP, UPDATE, DELETE, NEXT_KEY = 1, 2, 3, 4
TEST_RUN, INFO_BY_FD = 10, 15
LOOKUP_BATCH, LOOKUP_AND_DELETE_BATCH = 24, 25
PERCPU_TYPES = frozenset((5, 6, 10, 21))
"""BPF_MAP_TYPE_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH, _PERCPU_CGROUP_STORAGE: their values come once per possible CPU."""

_libc = ctypes.CDLL(None, use_errno=True)
_ATTRIBUTE = 144


def bpf(command: int, attribute: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """One bpf(2) call. Raises OSError."""
    buffer = attribute if isinstance(attribute, ctypes.Array) else ctypes.create_string_buffer(attribute, _ATTRIBUTE)
    result: int = _libc.syscall(NR_BPF[os.uname().machine], command, buffer, len(buffer))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def possible_cpus() -> int:
    """How many values a per-CPU map has for one key."""
    with open("/sys/devices/system/cpu/possible") as file:
        last = file.read().strip().rsplit(",", 1)[-1].rsplit("-", 1)[-1]
    return int(last) + 1


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says of a map."""

    kind: int
    id: int
    key_size: int
    value_size: int
    max_entries: int


class Map:
    """One map by its descriptor. Keys and values are bytes; per-CPU values come joined."""

    __slots__ = ("_key", "_value", "fd", "info", "value_bytes")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        info = ctypes.create_string_buffer(88)
        bpf(INFO_BY_FD, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
        kind, number, key_size, value_size, max_entries = struct.unpack_from("=IIIII", info)
        self.info = MapInfo(kind, number, key_size, value_size, max_entries)
        self.value_bytes = (value_size + 7) // 8 * 8 * possible_cpus() if kind in PERCPU_TYPES else value_size
        self._key = ctypes.create_string_buffer(max(key_size, 8))
        self._value = ctypes.create_string_buffer(max(self.value_bytes, 8))

    def _element(self, command: int, key: bytes, flags: int = 0) -> None:
        ctypes.memmove(self._key, key, len(key))
        value = 0 if command == DELETE else ctypes.addressof(self._value)  # the kernel refuses what a command does not read
        bpf(command, struct.pack("=IxxxxQQQ", self.fd, ctypes.addressof(self._key), value, flags))

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        try:
            self._element(LOOKUP, key)
        except FileNotFoundError:
            return None
        return self._value.raw[: self.value_bytes]

    def put(self, key: bytes, value: bytes) -> None:
        """Sets a value. Raises OSError (E2BIG when the map is full)."""
        ctypes.memmove(self._value, value, len(value))
        self._element(UPDATE, key)

    def remove(self, key: bytes) -> bool:
        """Whether the key was there."""
        try:
            self._element(DELETE, key)
        except FileNotFoundError:
            return False
        return True

    def keys(self) -> list[bytes]:
        """All keys, one call each: for small maps. A key that is removed meanwhile ends the walk early."""
        found: list[bytes] = []
        following = ctypes.create_string_buffer(max(self.info.key_size, 8))
        key = 0
        while len(found) < self.info.max_entries:
            try:
                bpf(NEXT_KEY, struct.pack("=IxxxxQQQ", self.fd, key, ctypes.addressof(following), 0))
            except FileNotFoundError:
                break
            found.append(following.raw[: self.info.key_size])
            ctypes.memmove(self._key, following, self.info.key_size)
            key = ctypes.addressof(self._key)
        return found


class BatchWalk:
    """Walks a hash map some hundred entries a call, removing them or not. Buffers are made once.

    The last call of a walk fails with ENOENT and yet holds valid entries: `count` tells.
    """

    __slots__ = ("_cursor", "_started", "count", "keys", "map", "remove", "values")

    def __init__(self, table: Map, *, count: int, remove: bool) -> None:
        self.map = table
        self.count = count
        self.remove = remove
        self.keys = ctypes.create_string_buffer(count * table.info.key_size)
        self.values = ctypes.create_string_buffer(count * table.value_bytes)
        self._cursor = ctypes.create_string_buffer(max(table.info.key_size, 8))
        self._started = False

    def restart(self) -> None:
        """The next step begins at the front."""
        self._started = False

    def step(self) -> tuple[int, bool]:
        """(entries now in `keys` and `values`, whether the walk is over)."""
        cursor = ctypes.addressof(self._cursor)
        attribute = ctypes.create_string_buffer(
            struct.pack(
                "=QQQQIIQQ",
                cursor if self._started else 0,
                cursor,
                ctypes.addressof(self.keys),
                ctypes.addressof(self.values),
                self.count,
                self.map.fd,
                0,
                0,
            ),
            _ATTRIBUTE,
        )
        over = False
        try:
            bpf(LOOKUP_AND_DELETE_BATCH if self.remove else LOOKUP_BATCH, attribute)
        except FileNotFoundError:
            over = True
        self._started = not over
        return struct.unpack_from("=I", attribute, 32)[0], over


class TestRun:
    """BPF_PROG_TEST_RUN of a socket filter: runs the whole chain of tail calls on one frame.

    The context is a `__sk_buff` whose `ifindex` (of an existing link, 0: loopback) and `cb` the program may read.
    """

    __test__ = False
    __slots__ = ("_attribute", "_context", "_data", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._data = ctypes.create_string_buffer(mmap.PAGESIZE)
        self._context = ctypes.create_string_buffer(192)
        self._attribute = ctypes.create_string_buffer(_ATTRIBUTE)

    def run(self, frame: bytes, *, cb: int = 0, ifindex: int = 0, repeat: int = 1) -> int:
        """Nanoseconds of one run, as the kernel averages them. Raises OSError when the frame is too short (14 bytes) or too long."""
        ctypes.memmove(self._data, frame, min(len(frame), mmap.PAGESIZE))
        struct.pack_into("=I", self._context, 40, ifindex)
        struct.pack_into("=Q", self._context, 48, cb)
        struct.pack_into(
            "=IIIIQQIIIIQQ",
            self._attribute,
            0,
            self.fd,
            0,
            len(frame),
            0,
            ctypes.addressof(self._data),
            0,
            repeat,
            0,
            192,
            0,
            ctypes.addressof(self._context),
            0,
        )
        bpf(TEST_RUN, self._attribute)
        return int(struct.unpack_from("=IIIIQQII", self._attribute)[7])
