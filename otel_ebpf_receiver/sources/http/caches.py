"""What the HTTP source remembers from batch to batch. Each is bounded and starts afresh when full."""

from __future__ import annotations

import fnmatch
import re

import numpy as np

from otel_ebpf_receiver.sources.http.authority import Authorities
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.http.redact import Masks
from otel_ebpf_receiver.telemetry.columns import U8, U64, Bools
from otel_ebpf_receiver.telemetry.keys import KeyIndex, mix, words
from otel_ebpf_receiver.telemetry.peers import Peers

_AGENTS_MAX = 32768


class Agents:
    """User-Agents: which of them make no spans."""

    def __init__(self, ignored: tuple[str, ...]) -> None:
        self._ignored = re.compile("|".join(fnmatch.translate(name) for name in ignored)) if ignored else None
        self._index = KeyIndex()

    def look_up(self, agents: U8) -> tuple[Bools, U64]:
        """Rows whose User-Agent (n x 8k, zero behind) is ignored, and a key of each row's text."""
        keys = mix(*words(agents))
        if self._ignored is None:
            return np.zeros(len(keys), bool), keys
        if len(self._index) > _AGENTS_MAX:
            self._index = KeyIndex()
        return self._index.number(keys, lambda row: self._is_ignored(agents[row].tobytes())) == 1, keys

    def _is_ignored(self, agent: bytes) -> int:
        assert self._ignored is not None
        return int(self._ignored.fullmatch(agent.rstrip(b"\0").decode("utf-8", "replace")) is not None)


class Caches:
    """All of them."""

    def __init__(self, options: HttpOptions) -> None:
        self.authorities = Authorities()
        self.agents = Agents(options.ignored_agents)
        self.masks = Masks(options.masked)
        self.peers = Peers()
