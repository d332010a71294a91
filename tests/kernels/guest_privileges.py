"""What the agent says where it lacks what a container runtime must give it. In a guest: see scripts/kernels.

That three capabilities are enough, by either transport, is seen in `guest_devices` and `guest_services`, whose agents have no more.
"""

from __future__ import annotations

import pytest

from tests.agent.process import run
from tests.capture.namespaces import namespace
from tests.kernels.least import CAPABILITIES, IS_LOCKED, LITTLE_MEMORY


def test_each_capability_is_asked_for_by_name() -> None:
    """Where one of the three is missing the agent says which, and ends with 77."""
    done = run("run", prefix=("setpriv", "--inh-caps=-all", "--bounding-set=-all,+bpf,+net_raw"))

    assert done.returncode == 77, done.stderr
    assert "CAP_PERFMON" in done.stderr
    assert "CAP_BPF" not in done.stderr


@pytest.mark.skipif(not IS_LOCKED, reason="this kernel does not look at the limit; the other tests run with a low one")
def test_locked_memory() -> None:
    """Before 5.11 a limit on locked memory that nothing may raise is refused with its remedy."""
    with namespace() as here:
        done = run("run", prefix=here.command(*LITTLE_MEMORY, *CAPABILITIES))

    assert done.returncode == 77, done.stderr
    assert "memory lock: 64 KiB; ulimit -l unlimited" in done.stderr
    assert "CAP_SYS_RESOURCE" in done.stderr
