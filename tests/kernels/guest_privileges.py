"""What the agent needs of a container runtime: three capabilities, and before Linux 5.11 locked memory. In a guest: see scripts/kernels."""

from __future__ import annotations

import json
import platform

import pytest

from otel_ebpf_receiver.kernel.preflight import MEMORY_CGROUP
from tests.agent.process import agent, curl, http_server, run
from tests.capture.namespaces import join, namespace

LEAST = ("setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+bpf,+perfmon,+net_raw")
"""As root in a container that drops all capabilities but these: no user of its own, no privilege to gain."""
JSON = {"OTEL_EBPF_RECEIVER_EXPORTERS_CONSOLE_FORMAT": "json"}
RELEASE = tuple(int(word) for word in platform.release().split(".")[:2])


@pytest.mark.parametrize("transport", ["ring", "hash"])
def test_three_capabilities_are_enough(transport: str) -> None:
    """With BPF, NET_RAW and PERFMON alone the agent starts, tells every exchange once and ends well; records come by either transport."""
    with namespace() as here, namespace() as there:
        join(here, there)
        environ = {**JSON, "OTEL_EBPF_RECEIVER_CAPTURE_TRANSPORT": transport}
        with http_server(there.command()), agent(prefix=here.command(*LEAST), env=environ) as running:
            running.ready()
            codes = [curl(here.command(), f"http://10.77.0.2:8080/{number}") for number in range(3)]
            code = running.stop()
            lines = [json.loads(line) for line in running.out.rest() if line.startswith("{")]

    assert code == 0
    assert codes == ["404"] * 3
    assert [(line["path"], line["status"]) for line in lines] == [(f"/{number}", 404) for number in range(3)]


def test_each_capability_is_asked_for_by_name() -> None:
    """Where one of the three is missing the agent says which, and ends with 77."""
    done = run("run", prefix=("setpriv", "--inh-caps=-all", "--bounding-set=-all,+bpf,+net_raw"))

    assert done.returncode == 77, done.stderr
    assert "CAP_PERFMON" in done.stderr
    assert "CAP_BPF" not in done.stderr


def test_locked_memory() -> None:
    """Before 5.11 a limit on locked memory that nothing may raise is refused with its remedy; later kernels do not look at it."""
    limited = ("prlimit", f"--memlock={64 << 10}:{64 << 10}", *LEAST)
    with namespace() as here:
        if RELEASE < MEMORY_CGROUP:
            done = run("run", prefix=here.command(*limited))

            assert done.returncode == 77, done.stderr
            assert "memory lock: 64 KiB; ulimit -l unlimited" in done.stderr
            assert "CAP_SYS_RESOURCE" in done.stderr
        else:
            with agent(prefix=here.command(*limited)) as running:
                running.ready()

                assert running.stop() == 0
