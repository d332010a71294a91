"""A row as a source would make it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    """Fulfils `export.lines.Row`."""

    time_unix_ns: int = 1_700_000_000_123_456_789
    client: str = "10.0.0.1:40000"
    server: str = "shop/web:80"
    method: str = "GET"
    path: str = "/cart"
    status: int | None = 200
    ttfb_ns: int | None = 1_250_000
    duration_ns: int = 2_500_000
    request_bytes: int = 0
    response_bytes: int = 1536
    error: str | None = None
    flags: tuple[str, ...] = ()
