"""Kernel modules that a guest test needs: in a guest of `scripts/kernels` they must be there, so a missing one fails instead of skipping."""

from __future__ import annotations

import platform
import subprocess


def need(*names: str) -> None:
    """Loads modules. AssertionError names the one that this kernel lacks."""
    for name in names:
        done = subprocess.run(["modprobe", name], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (
            f"kernel {platform.release()} has no module {name!r} ({done.stderr.strip()}); these tests run in a guest: scripts/kernels"
        )
