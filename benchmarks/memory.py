"""Memory of the agent: resident, and what its memory cgroup is charged (the ring and all kernel maps included): at start, idle, under load.

    scripts/bench memory             or: python benchmarks/memory.py [--seconds N]

Without Kubernetes, and following a cluster of 5,000 pods. The agent runs in a cgroup of its own. Its first start compiles the kernel side in a
child (LLVM); later ones find that work in a cache.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks._stage import GRPC_SINK_PORT, Stage, Watcher, agent, api_server, grpc_sink, sink, stage
from benchmarks.machine import describe
from otel_ebpf_receiver.agent.slack import QUIET_S

CACHE = "/var/cache/otel-ebpf-receiver"
MUST_MIB = 80
PODS, PODS_MUST_MIB, PODS_GRPC_MUST_MIB = 5000, 90, 110
CGROUP_MUST_MIB, PEAK_MUST_MIB = 200, 280
GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{GRPC_SINK_PORT}"}
MIB = 1 << 20


class Cgroup:
    """One memory cgroup, of either version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._is_v2 = (folder / "memory.current").exists()

    def current_mib(self) -> float:
        return int((self.folder / ("memory.current" if self._is_v2 else "memory.usage_in_bytes")).read_text()) / MIB

    def peak_mib(self) -> float:
        return int((self.folder / ("memory.peak" if self._is_v2 else "memory.max_usage_in_bytes")).read_text()) / MIB

    def parts(self) -> str:
        """Where it lies, as far as the version tells."""
        words = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        names = ("anon", "file", "kernel", "percpu") if self._is_v2 else ("rss", "cache")
        told = {name: int(words[name]) / MIB for name in names if name in words}
        if not self._is_v2:
            told["kernel"] = int((self.folder / "memory.kmem.usage_in_bytes").read_text()) / MIB
        return ", ".join(f"{name} {value:.1f}" for name, value in told.items())

    def entering(self, fresh_cache: bool) -> list[str]:
        """Prefix of a command that runs in it; `fresh_cache`: as if this version had never been started."""
        mount = f"mkdir -p {CACHE} && mount -t tmpfs -o mode=700 tmpfs {CACHE} && " if fresh_cache else ""
        return ["unshare", "-m", "sh", "-c", f'{mount}echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh"]


@contextlib.contextmanager
def cgroup(number: int) -> Iterator[Cgroup]:
    """A fresh one, gone at the end."""
    root = Path("/sys/fs/cgroup")
    base = root / "memory" if (root / "memory").is_dir() else root
    folder = base / f"oer-bench-{os.getpid()}-{number}"
    folder.mkdir()
    try:
        yield Cgroup(folder)
    finally:
        deadline = time.monotonic() + 10
        while folder.is_dir() and time.monotonic() < deadline:  # the kernel takes a moment to let go
            with contextlib.suppress(OSError):
                folder.rmdir()
            time.sleep(0.1)


def state(name: str, running: Watcher, group: Cgroup, must_mib: int) -> None:
    rss = running.rss_mib()
    print(
        f"  {name:28} RSS {rss:6.1f} MiB (must be {must_mib}; ratio {rss / must_mib:.2f})  cgroup {group.current_mib():6.1f} MiB "
        f"(must be {CGROUP_MUST_MIB}), peak so far {group.peak_mib():6.1f} (must be {PEAK_MUST_MIB}) ({group.parts()})"
    )


def run(
    where: Stage, seconds: int, number: int, *, must_mib: int = MUST_MIB, fresh_cache: bool = False, env: Mapping[str, str] | None = None
) -> None:
    with cgroup(number) as group, agent(where, prefix=group.entering(fresh_cache), env=env) as running:
        state("ready", running, group, must_mib)
        time.sleep(3)
        state("idle for 3 s", running, group, must_mib)
        rate = where.load(seconds).per_s
        state(f"after {seconds} s at {rate:,.0f}/s", running, group, must_mib)
        time.sleep(QUIET_S + 1)
        state("idle again", running, group, must_mib)
        running.stop()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=10)
    options = arguments.parse_args()
    print(describe())
    with stage() as where, sink(where), grpc_sink(where):
        print("\nfirst start of a version: compiles; default options, OTLP")
        run(where, options.seconds, 1, fresh_cache=True)
        print("later start: from the cache; default options, OTLP")
        run(where, options.seconds, 2)
        print("later start: OTLP over gRPC")
        run(where, options.seconds, 3, env=GRPC)
        with api_server(where, PODS) as api:
            print(f"first start with {PODS:,} pods: compiles; OTLP")
            run(where, options.seconds, 4, must_mib=PODS_MUST_MIB, fresh_cache=True, env=api.env)
            print(f"later start with {PODS:,} pods: OTLP")
            run(where, options.seconds, 5, must_mib=PODS_MUST_MIB, env=api.env)
            print(f"later start with {PODS:,} pods: OTLP over gRPC")
            run(where, options.seconds, 6, must_mib=PODS_GRPC_MUST_MIB, env={**api.env, **GRPC})


if __name__ == "__main__":
    main()
