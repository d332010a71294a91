"""The status server on this host, for probes and people: /healthz, /readyz, /metrics, /status, and the live page where it is wanted.

Needs no privilege, reveals no payload; what was asked for is told by the live page only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from otel_ebpf_receiver.status.counters import Counters
from otel_ebpf_receiver.status.exposition import CONTENT_TYPE, exposition
from otel_ebpf_receiver.status.pages import PLAIN, Answer, Open, Page, PageServer

PORT = 14318
"""OTLP's port with a one before it; 9464, the usual one of Prometheus exporters in SDKs, is left to the applications of a node."""


class StatusServer(PageServer):
    """Binds at construction, serves from `start()` on. `stop()` is safe twice and before `start()`."""

    def __init__(
        self,
        counters: Counters,
        *,
        is_live: Callable[[], bool],
        is_ready: Callable[[], bool],
        missing: Callable[[], Sequence[str]] = tuple,
        status: Callable[[], Mapping[str, object]],
        host: str = "127.0.0.1",
        port: int = PORT,
        more: Mapping[str, Page] | None = None,
        streams: Mapping[str, Open] | None = None,
    ) -> None:
        """`missing`: what is not as it should be and yet no reason to hold up a roll-out. `more`: further pages.

        Raises `AgentError` when the address cannot be had.
        """
        pages: dict[str, Page] = {
            "/healthz": lambda _: _probe(is_live(), "alive", "not alive"),
            "/readyz": lambda _: _probe(is_ready(), "\n".join(("ready", *missing())), "not ready"),
            "/metrics": lambda _: (200, CONTENT_TYPE, exposition(counters.readings())),
            "/status": lambda _: (200, "application/json", json.dumps(status(), default=str, indent=1) + "\n"),
            **(more or {}),
        }
        super().__init__("status server", pages, section="status", host=host, port=port, streams=streams)


def _probe(holds: bool, yes: str, no: str) -> Answer:
    return (200, PLAIN, yes + "\n") if holds else (503, PLAIN, no + "\n")
