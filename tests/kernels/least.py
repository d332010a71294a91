"""The privileges that a container runtime gives the agent: three capabilities, and before Linux 5.11 locked memory. For guests of `scripts/kernels`."""

from __future__ import annotations

import platform

from otel_ebpf_receiver.kernel.preflight import MEMORY_CGROUP

IS_LOCKED = tuple(int(word) for word in platform.release().split(".")[:2]) < MEMORY_CGROUP
"""Whether maps count as locked memory."""
CAPABILITIES = ("setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+bpf,+perfmon,+net_raw")
"""As root in a container that drops all capabilities but these: no user of its own, no privilege to gain."""
LITTLE_MEMORY = ("prlimit", f"--memlock={64 << 10}:{64 << 10}")
LEAST = (*(("prlimit", "--memlock=unlimited:unlimited") if IS_LOCKED else LITTLE_MEMORY), *CAPABILITIES)
"""What is enough on this kernel."""
