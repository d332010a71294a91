"""How long a start takes until the agent is ready, programs compiled before: `scripts/run` as a user types it, and the agent alone.

    scripts/bench start               or: python benchmarks/start.py [--rounds N]

Processor time is told apart: in the agent's own code (imports most of all) and in the kernel, which is the verifier; both work at the same time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import describe, median
from tests.agent.process import ROOT, environment
from tests.capture.namespaces import Namespace, namespace

VARIANTS = {"scripts/run": ["scripts/run"], "the agent": [".venv/bin/otel-ebpf-receiver", "run"]}
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds until the line that says ready; of processor time what the process and its children spent until then."""

    wall_s: float
    user_s: float
    kernel_s: float


def once(where: Namespace, command: list[str]) -> Start:
    begun_s = time.monotonic()
    with subprocess.Popen(
        where.command(*command), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        said = next((line for line in process.stdout if line.startswith("ready")), "")
        wall_s = time.monotonic() - begun_s
        words = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        user, kernel, ended_user, ended_kernel = (int(word) / TICKS for word in words[11:15])
        process.terminate()
    if not said:
        raise SystemExit(f"{command[0]} did not become ready: exit {process.returncode}")
    return Start(wall_s, user + ended_user, kernel + ended_kernel)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=10)
    options = arguments.parse_args()
    print(describe())
    with namespace() as where:
        where.ip("link", "set", "lo", "up")
        for command in VARIANTS.values():
            once(where, command)
        found: dict[str, list[Start]] = {name: [] for name in VARIANTS}
        for _ in range(options.rounds):
            for name, command in VARIANTS.items():
                found[name].append(once(where, command))
    print(f"\nseconds until ready, medians of {options.rounds} alternated starts (least to most), and of processor time")
    for name, starts in found.items():
        wall = [one.wall_s for one in starts]
        print(
            f"{name:12}{median(wall):6.2f} ({min(wall):.2f}..{max(wall):.2f}); own {median([one.user_s for one in starts]):.2f}, "
            f"kernel {median([one.kernel_s for one in starts]):.2f}"
        )


if __name__ == "__main__":
    main()
