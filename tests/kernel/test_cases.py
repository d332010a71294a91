"""Every case on disk through the kernel: whole, cut at every byte, byte by byte, every segment twice, padded frames, trailing bytes."""

from __future__ import annotations

import pytest

from tests.kernel import harness, judge, loaded
from tests.kernel.harness import Kernel
from tests.wire import staging
from tests.wire.cases import Case

CASES = [(case, mode) for case in loaded.cases() for mode in staging.modes(case)]
"""Every case in every mode but those that it leaves out, with its reason, and trailing bytes where a connection has ended."""


@pytest.mark.parametrize(("case", "mode"), CASES, ids=[f"{case.where}/{case.name}/{mode}" for case, mode in CASES])
def test_case(kernel: Kernel, case: Case, mode: str) -> None:
    """The kernel reports what the case says, however its bytes are cut into segments."""
    for at in staging.runs(case, mode):
        complaints, play = judge.run(kernel, case, mode, at)

        assert not complaints, "\n".join([f"cut at {at}", *complaints, *map(harness.transcript, play.flows)])
