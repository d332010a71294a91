"""What every test against a real server starts from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.node import Node, node


@pytest.fixture
def here() -> Iterator[Node]:
    """A node with two pods."""
    with node() as made:
        yield made
