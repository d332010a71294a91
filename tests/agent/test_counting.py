"""What the agent concludes from the kernel's counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from otel_ebpf_receiver.agent.counting import Kernel
from otel_ebpf_receiver.kernel.programs import OpenRequests


class Counted:
    """Gives readings of (opened, answered) one after the other, and always as many open requests."""

    def __init__(self, readings: Sequence[tuple[int, int]], waiting: int) -> None:
        self._readings, self._waiting = list(readings), waiting

    def counters(self) -> dict[str, int]:
        opened, answered = self._readings.pop(0)
        return {"http_opened": opened, "http_answered": answered}

    def open_requests(self) -> OpenRequests:
        return OpenRequests(self._waiting, 0)


@pytest.mark.parametrize(
    ("readings", "waiting", "evicted"),
    [
        ([(10, 7), (10, 7)], 3, 0),
        ([(10, 7), (10, 7)], 1, 2),
        # Three were open, one ended during the walk: it is no longer there, and was not evicted.
        ([(10, 7), (10, 8)], 2, 0),
        # Others began during the walk.
        ([(10, 7), (14, 9)], 5, 0),
    ],
)
def test_only_what_is_certain_is_called_evicted(readings: list[tuple[int, int]], waiting: int, evicted: int) -> None:
    """Requests that begin or end while the open ones are counted are not evicted."""
    kernel = Kernel(cast(Any, Counted(readings, waiting)))

    assert kernel.read().evicted == evicted
