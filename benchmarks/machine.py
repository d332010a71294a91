"""The machine that numbers belong to, and how they are summed up. Alone it prints what every benchmark prints first."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path


def _first(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return "unknown"


def describe() -> str:
    """Machine, kernel, interpreter, and how busy it was before."""
    memory_gib = int(_first("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)
    return (
        f"machine: {_first('/proc/cpuinfo', 'model name')}, {platform.machine()}, {os.cpu_count()} CPUs, {memory_gib:.0f} GiB, "
        f"load {os.getloadavg()[0]:.1f} before\n"
        f"kernel:  {platform.system()} {platform.release()}; Python {platform.python_version()}\n"
        f"command: {' '.join(sys.argv)}"
    )


def median(values: Sequence[float]) -> float:
    """The median; rounds on a shared machine have outliers to one side."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> str:
    """Least and greatest, for whoever wants to judge the median."""
    return f"{min(values):,.0f}..{max(values):,.0f}"


if __name__ == "__main__":
    print(describe())
