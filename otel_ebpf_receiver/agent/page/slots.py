"""Places in tables of a fixed size for things that come and go: the ends of calls, routes, edges.

Place 0 stands for everything that found no room, so nothing is left out of a sum and nothing grows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import U64
from otel_ebpf_receiver.telemetry.keys import KeyIndex

T = TypeVar("T")
Places = npt.NDArray[np.int32]


class Slots(Generic[T]):
    """Keeps one thing per place. `serials` never come twice, so that a reader can tell a new thing at an old place."""

    def __init__(self, places: int) -> None:
        self.things: list[T | None] = [None] * places
        self.serials = [0] * places
        self.refused = 0
        """Times that a thing found no room."""
        self._keys = np.zeros(places, np.uint64)
        self._free = list(range(places - 1, 0, -1))
        self._index = KeyIndex()
        self._serial = 0

    def __len__(self) -> int:
        return len(self.things) - 1 - len(self._free)

    @property
    def is_full(self) -> bool:
        return not self._free

    def places(self, keys: U64, describe: Callable[[int], T]) -> Places:
        """The place of each key; `describe(row)` makes the thing of a key that is new."""
        # Keys without a place are remembered too, as being of place 0: not for ever, or they would be what grows.
        if len(self._index) > 4 * len(self.things) + 1024:
            self._rebuild()

        def make(row: int) -> int:
            if not self._free:
                self.refused += 1
                return 0
            place = self._free.pop()
            self._serial += 1
            self.things[place], self.serials[place], self._keys[place] = describe(row), self._serial, keys[row]
            return place

        return self._index.number(keys, make)

    def release(self, gone: npt.NDArray[np.intp]) -> None:
        """Frees places; what was refused may try again."""
        for place in gone.tolist():
            if place and self.things[place] is not None:
                self.things[place] = None
                self._free.append(place)
        self._rebuild()

    def _rebuild(self) -> None:
        kept = np.array([place for place, thing in enumerate(self.things) if thing is not None], np.int32)
        self._index = KeyIndex()
        self._index.insert(self._keys[kept], kept)
