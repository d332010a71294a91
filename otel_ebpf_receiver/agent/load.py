"""The kernel programs from the configuration, loaded by a child while the agent imports what it will need."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from otel_ebpf_receiver.capture.select import missing
from otel_ebpf_receiver.capture.watch import list_links
from otel_ebpf_receiver.errors import CaptureError

if TYPE_CHECKING:
    from otel_ebpf_receiver.config.schema import Config
    from otel_ebpf_receiver.kernel.assemble import KernelSource
    from otel_ebpf_receiver.kernel.loader import BuildOptions
    from otel_ebpf_receiver.kernel.programs import Programs

_LOG = logging.getLogger(__name__)


class Stop(Protocol):
    """The wish to end, as the command line catches it."""

    @property
    def is_requested(self) -> bool: ...

    @property
    def descriptor(self) -> int:
        """Readable when it is requested."""

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the wish raises nothing; at the end it does."""

    def calm(self) -> None:
        """From now on the wish raises nothing; flag and descriptor are watched."""


def require_interfaces(config: Config) -> None:
    """Raises `CaptureError` naming the interfaces of the configuration that do not exist, and those that do."""
    links = list_links()
    absent = missing(links, config.capture.taps)
    if absent:
        known = ", ".join(sorted(link.name for link in links.values()))
        raise CaptureError("\n".join(f"interface {name!r} does not exist; there are: {known}" for name in absent))


def kernel_side(config: Config) -> tuple[KernelSource, BuildOptions]:
    """What the configuration asks to be compiled."""
    from otel_ebpf_receiver.kernel.loader import BuildOptions
    from otel_ebpf_receiver.sources.http.kernel import kernel_source

    capture = config.capture
    headers = [name.lower() for name in config.http.headers]
    source = kernel_source(config.http.target_bytes, headers, pending=capture.pending)
    return source, BuildOptions(capture.transport, capture.ring_bytes, defines={"FLOWS": capture.flows})


@contextlib.contextmanager
def load(config: Config, stop: Stop, modules: Iterable[str] = ()) -> Iterator[Programs]:
    """The loaded programs. `modules` are imported while the child compiles. Raises `PreflightError`."""
    from otel_ebpf_receiver.kernel.loader import Compilation

    source, options = kernel_side(config)
    with contextlib.ExitStack() as stack:
        # A child must be known to the stack before anything can end us: it would go on compiling.
        with stop.held():
            compilation = Compilation([source], options)
            stack.callback(compilation.abort)
        if not compilation.is_kept:
            _LOG.info("compiling the kernel side, which takes some seconds; later starts find it done")
        for module in modules:
            importlib.import_module(module)
        with compilation.finish() as programs:
            yield programs
