"""One exchange as a line for people or as JSON, and the filters of the console. Pure; what a row holds comes from a source."""

from __future__ import annotations

import fnmatch
import json
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from otel_ebpf_receiver.errors import ExportError


class Row(Protocol):
    """What a source tells about one exchange. Times and durations are nanoseconds; `status` and `ttfb_ns` are None without an answer."""

    @property
    def time_unix_ns(self) -> int: ...
    @property
    def client(self) -> str: ...
    @property
    def server(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def status(self) -> int | None: ...
    @property
    def ttfb_ns(self) -> int | None: ...
    @property
    def duration_ns(self) -> int: ...
    @property
    def request_bytes(self) -> int: ...
    @property
    def response_bytes(self) -> int: ...
    @property
    def error(self) -> str | None: ...
    @property
    def flags(self) -> Sequence[str]: ...


PEERS = " → "
Keep = Callable[[Row], bool]


def _of_class(hundreds: int) -> Keep:
    return lambda row: row.status is not None and row.status // 100 == hundreds


def _is_error(row: Row) -> bool:
    return row.error is not None or (row.status is not None and row.status >= 500)


ONLY: dict[str, Keep] = {**{f"{hundreds}xx": _of_class(hundreds) for hundreds in (2, 3, 4, 5)}, "errors": _is_error, "error": _is_error}
"""The values of `--only`. An error is what the server's span calls one: an end before the answer, or 5xx."""


def keep_rows(only: str | None = None, path: str | None = None, service: str | None = None) -> Keep:
    """The predicate of `--only`, `--path GLOB` and `--service NAME` (either side, by name or `namespace/name`, port and all optional)."""
    if only is not None and only not in ONLY:
        raise ExportError(f"only: '{only}' is no filter; use one of {', '.join(ONLY)}")
    chosen: list[Keep] = []
    if only is not None:
        chosen.append(ONLY[only])
    if path is not None:
        chosen.append(lambda row: fnmatch.fnmatchcase(row.path.partition("?")[0], path))
    if service is not None:
        chosen.append(lambda row: service in _names(row.client) or service in _names(row.server))
    return lambda row: all(keep(row) for keep in chosen)


def cells(row: Row) -> tuple[str, ...]:
    """The columns of a line as texts without control characters: time, peers, method, path, status, first byte, duration, sizes, notes."""
    seconds, rest = divmod(row.time_unix_ns, 1_000_000_000)
    notes = ([row.error] if row.error else []) + [flag for flag in row.flags if flag]
    return (
        f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1_000_000:03d}",
        printable(f"{row.client}{PEERS}{row.server}"),
        printable(row.method),
        printable(row.path),
        "-" if row.status is None else str(row.status),
        "-" if row.ttfb_ns is None else duration(row.ttfb_ns),
        duration(row.duration_ns),
        f"{size(row.request_bytes)}/{size(row.response_bytes)}",
        printable(" ".join(notes)),
    )


def plain_line(row: Row) -> str:
    """One line, cells separated by a blank."""
    return " ".join(cell for cell in cells(row) if cell)


def json_line(row: Row) -> str:
    """One JSON object, ASCII only; names are the row's."""
    return json.dumps(
        {
            "time_unix_ns": row.time_unix_ns,
            "client": row.client,
            "server": row.server,
            "method": row.method,
            "path": row.path,
            "status": row.status,
            "ttfb_ns": row.ttfb_ns,
            "duration_ns": row.duration_ns,
            "request_bytes": row.request_bytes,
            "response_bytes": row.response_bytes,
            "error": row.error,
            "flags": list(row.flags),
        }
    )


def duration(nanoseconds: int) -> str:
    """Three significant digits: `850µs`, `1.25ms`, `12.3s`."""
    for unit, factor in (("s", 1e9), ("ms", 1e6)):
        if nanoseconds >= factor * 0.9995:
            return f"{_digits(nanoseconds / factor)}{unit}"
    return f"{nanoseconds / 1e3:.0f}µs"


def size(size_bytes: int) -> str:
    """`512B`, `1.50KiB`, `20.0MiB`."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= factor:
            return f"{_digits(size_bytes / factor)}{unit}"
    return f"{size_bytes}B"


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal escaped: a path comes from the wire, and so would its escape sequences."""
    return text if text.isprintable() else "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _digits(value: float) -> str:
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def without_port(peer: str) -> str:
    """A side without its port, if it has one: `shop/web:80` and `[::1]:80` do, `::1` does not."""
    return peer if peer.count(":") > 1 and not peer.startswith("[") else peer.rpartition(":")[0] or peer


def _names(peer: str) -> set[str]:
    """The names by which a side may be asked for: as shown, without its port, and without its namespace."""
    bare = without_port(peer)
    return {peer, bare, bare.strip("[]"), bare.rpartition("/")[2]}
