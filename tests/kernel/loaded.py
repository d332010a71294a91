"""Where the kernel tests get the loaded programs and the cases from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import otel_ebpf_receiver.sources.http
from otel_ebpf_receiver.kernel.assemble import KernelSource
from otel_ebpf_receiver.kernel.loader import BuildOptions
from otel_ebpf_receiver.kernel.loader import load as load_programs
from otel_ebpf_receiver.sources.http.kernel import kernel_source
from tests.kernel.harness import Kernel
from tests.wire.cases import Case, load


def cases() -> list[Case]:
    """All cases of the HTTP source."""
    return load(Path(otel_ebpf_receiver.sources.http.__file__).parent / "cases")


@contextmanager
def kernel(source: KernelSource | None = None, options: BuildOptions | None = None) -> Iterator[Kernel]:
    """The programs, loaded with default options or with others."""
    with load_programs([source or kernel_source()], options) as programs:
        yield Kernel(programs)
