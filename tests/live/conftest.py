"""What the live tests need: the programs that they drive, and the kernel side loaded once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from otel_ebpf_receiver.kernel.loader import load
from otel_ebpf_receiver.kernel.programs import Programs
from otel_ebpf_receiver.sources.http.kernel import kernel_source

TOOLS = ("ip", "bridge", "nft", "nginx", "curl", "wrk", "openssl", "tcpdump", "tshark")


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """Missing ones are said at once."""
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        pytest.fail(f"the live tests need {', '.join(missing)}: scripts/setup test installs them")


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    """The kernel side with default options."""
    with load([kernel_source()]) as loaded:
        yield loaded
