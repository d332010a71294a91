"""What holds for every test: the real kernel is the test double, so all of them run as root."""

from __future__ import annotations

import os

import pytest


def pytest_sessionstart() -> None:
    """Stop before the first test where none could load a program or make a network namespace."""
    if os.geteuid() != 0:
        pytest.exit("the tests load BPF programs and make network namespaces: run them as root, `sudo scripts/test`", returncode=77)
