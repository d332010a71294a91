"""helm, as a user runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.chart.rendered import CHART
from tests.interop.server import binary

VERSION = "1.34.0"
"""Kubernetes, as it is rendered for."""


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run, whatever its end."""
    return subprocess.run([binary("helm"), *arguments], capture_output=True, text=True, timeout=120, check=False)


def template(*arguments: str, chart: Path = CHART, release: str = "example", namespace: str = "observability") -> str:
    """What it renders. Raises AssertionError with its words when it refuses."""
    done = helm("template", release, str(chart), "--namespace", namespace, "--kube-version", VERSION, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout
