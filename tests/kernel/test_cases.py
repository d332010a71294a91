"""Every case on disk through the kernel: whole, cut at every byte, byte by byte, every segment twice, padded frames, trailing bytes."""

from __future__ import annotations

import pytest

from tests.kernel import harness, judge, loaded
from tests.kernel.harness import Kernel
from tests.wire import cases, staging
from tests.wire.cases import Case


@pytest.mark.parametrize("case", loaded.cases(), ids=lambda case: f"{case.where}/{case.name}")
@pytest.mark.parametrize("mode", cases.MODES)
def test_case(kernel: Kernel, case: Case, mode: str) -> None:
    """The kernel reports what the case says, however its bytes are cut into segments."""
    if mode in case.skips:
        pytest.skip(f"left out by the case: {case.skips[mode]}")
    if mode not in staging.modes(case):
        pytest.skip("nothing trails behind the end of a connection")

    for at in staging.runs(case, mode):
        complaints, play = judge.run(kernel, case, mode, at)

        assert not complaints, "\n".join([f"cut at {at}", *complaints, *map(harness.transcript, play.flows)])
