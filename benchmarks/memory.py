"""Memory of the agent: resident, and what its memory cgroup is charged (the ring and all kernel maps included): at start, idle, under load.

    scripts/bench memory             or: python benchmarks/memory.py [--seconds N]

The agent runs in a cgroup of its own. Its first start compiles the kernel side in a child (LLVM); later ones find that work in a cache.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._stage import Stage, Watcher, agent, sink, stage
from benchmarks.machine import describe

CACHE = "/var/cache/otel-ebpf-receiver"
MUST_MIB = 80
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


def state(name: str, running: Watcher, group: Cgroup, must: bool = True) -> None:
    rss = running.rss_mib()
    note = f" (must be {MUST_MIB}; ratio {rss / MUST_MIB:.2f})" if must else ""
    print(
        f"  {name:28} RSS {rss:6.1f} MiB{note:32} cgroup {group.current_mib():6.1f} MiB, peak so far {group.peak_mib():6.1f} ({group.parts()})"
    )


def run(where: Stage, seconds: int, number: int, *, fresh_cache: bool = False, env: dict[str, str] | None = None) -> None:
    with cgroup(number) as group, agent(where, prefix=group.entering(fresh_cache), env=env) as running:
        state("ready", running, group)
        time.sleep(3)
        state("idle for 3 s", running, group)
        where.load(seconds)
        state(f"after {seconds} s at saturation", running, group)
        time.sleep(2)
        state("idle again", running, group)
        running.stop()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=10)
    options = arguments.parse_args()
    print(describe())
    with stage() as where, sink(where):
        print("\nfirst start of a version: compiles; default options, OTLP")
        run(where, options.seconds, 1, fresh_cache=True)
        print("later start: from the cache; default options, OTLP")
        run(where, options.seconds, 2)
        print("later start: OTLP over gRPC")
        run(where, options.seconds, 3, env={"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


if __name__ == "__main__":
    main()
