"""What holds for every test: the real kernel is the test double, so all of them run as root."""

from __future__ import annotations

import os
import sys

import pytest


def pytest_sessionstart() -> None:
    """Stop before the first test where none could load a program or make a network namespace."""
    if os.geteuid() != 0:
        pytest.exit("the tests load BPF programs and make network namespaces: run them as root, `sudo scripts/test`", returncode=77)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell a failure at once where that is asked for: whoever may end the run before its summary (`.ci/run`) must know of it."""
    if report.failed and "FAILURES_AT_ONCE" in os.environ:
        print(f"\nFAILED {report.nodeid}, {report.when}", file=sys.__stdout__, flush=True)
