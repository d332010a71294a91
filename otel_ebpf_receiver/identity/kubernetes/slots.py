"""Numbers for workloads that stay while somebody holds them, so that rows made from them once need not be made again.

Pure. The first ones are permanent (names from the configuration); a number is given away again only after its last holder left.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from otel_ebpf_receiver.identity.snapshot import Trait
from otel_ebpf_receiver.telemetry.columns import AttributeValue
from otel_ebpf_receiver.telemetry.workload import Workload

_NOBODY = Workload({})


@dataclass(slots=True)
class _Held:
    number: int
    holders: int = 0


class Slots:
    """Workloads and traits by number; `hold` and `release` count holders of a key."""

    def __init__(self, permanent: Sequence[Workload] = ()) -> None:
        self.workloads: list[Workload] = list(permanent)
        self.traits = array("H", [int(Trait.SELECTED)] * len(permanent))
        self._held: dict[Hashable, _Held] = {}
        self._free: list[int] = []

    def hold(self, key: Hashable, traits: Trait, attributes: Mapping[str, AttributeValue], address_name: str) -> int:
        """The number of `key`. A workload that did not change stays the same object, so that what others keep about it stays valid."""
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = _Held(self._next())
        held.holders += 1
        number = held.number
        self.traits[number] = int(traits)
        old = self.workloads[number]
        if attributes != old.attributes or address_name != old.address_name:
            self.workloads[number] = Workload(attributes, address_name)
        return number

    def number(self, key: Hashable) -> int:
        """The number of a key that somebody holds."""
        return self._held[key].number

    def release(self, key: Hashable) -> None:
        """One holder less."""
        held = self._held[key]
        held.holders -= 1
        if not held.holders:
            del self._held[key]
            self.workloads[held.number], self.traits[held.number] = _NOBODY, 0
            self._free.append(held.number)

    def _next(self) -> int:
        if self._free:
            return self._free.pop()
        self.workloads.append(_NOBODY)
        self.traits.append(0)
        return len(self.workloads) - 1
