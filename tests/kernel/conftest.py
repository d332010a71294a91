"""Loads the kernel programs once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel import loaded
from tests.kernel.harness import Kernel


@pytest.fixture(scope="session")
def kernel() -> Iterator[Kernel]:
    """The programs with default options."""
    with loaded.kernel() as kernel:
        yield kernel
