"""What the HTTP source remembers from batch to batch. Each is bounded and starts afresh when full."""

from __future__ import annotations

import fnmatch
import re

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.sources.http.authority import Authorities
from otel_ebpf_receiver.sources.http.methods import Methods
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.http.redact import Masks
from otel_ebpf_receiver.telemetry.columns import U8, U64
from otel_ebpf_receiver.telemetry.keys import KeyIndex, text_keys
from otel_ebpf_receiver.telemetry.peers import Peers

_AGENTS_MAX = 32768


PLAIN, IGNORED, OWN, SDK = range(4)
"""What a User-Agent says: nothing special, that the user wants no spans of it, that it is an agent of this kind, that it is an SDK's exporter."""
_OWN = re.compile(r"otel_ebpf_receiver(/.*)?", re.DOTALL)
_SDK = re.compile(r"OTel[- ]OTLP[- ]Exporter[- ].*", re.DOTALL)
"""OpenTelemetry specification, OTLP exporter, User Agent; Go writes it with blanks."""
_BEGINNING = int.from_bytes(b"otel", "little")
"""The four letters that both begin with."""


class Agents:
    """User-Agents: what they say about an exchange."""

    def __init__(self, ignored: tuple[str, ...]) -> None:
        self._ignored = re.compile("|".join(fnmatch.translate(name) for name in ignored)) if ignored else None
        self._index = KeyIndex()

    def look_up(self, agents: U8, lengths: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int32], U64]:
        """What each User-Agent (n x 8k, zero behind `lengths`) says, and a key of its text."""
        keys = text_keys(agents, lengths)
        if len(self._index) > _AGENTS_MAX:
            self._index = KeyIndex()
        return self._index.number(keys, lambda row: self._kind(agents[row].tobytes())), keys

    @staticmethod
    def may_export(agents: U8) -> bool:
        """Whether any User-Agent (n x 4k) begins as those of exporters do: few batches have one, and the others need not be looked up for it."""
        # hot: benchmarks/cpu.py
        return bool((agents.view(np.uint32)[:, 0] | 0x20202020 == _BEGINNING).any())

    def _kind(self, agent: bytes) -> int:
        text = agent.rstrip(b"\0").decode("utf-8", "replace")
        if _OWN.fullmatch(text):
            return OWN
        if self._ignored and self._ignored.fullmatch(text):
            return IGNORED
        return SDK if _SDK.fullmatch(text) else PLAIN


class Caches:
    """All of them."""

    def __init__(self, options: HttpOptions) -> None:
        self.authorities = Authorities()
        self.agents = Agents(options.ignored_agents)
        self.masks = Masks(options.masked)
        self.peers = Peers()
        self.methods = Methods(options.methods)
