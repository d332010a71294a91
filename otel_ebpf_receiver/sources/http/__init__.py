"""HTTP/1.x, declared as data: its C, its record, its spans and metrics. What each column means is in `columns.py`; see README.md.

Importing this package, which is done before anything is loaded into the kernel, imports little of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_ebpf_receiver.sources.http.options import HttpOptions
    from otel_ebpf_receiver.sources.source import Source

NAME = "http"


def source(options: HttpOptions) -> Source:
    """The HTTP source as the user wants it. CLIENT spans come first: a SERVER span may hang from one."""
    from otel_ebpf_receiver.sources.http.columns import HttpView
    from otel_ebpf_receiver.sources.http.decoder import HttpDecoder
    from otel_ebpf_receiver.sources.http.exports import exports
    from otel_ebpf_receiver.sources.http.instruments import all_instruments
    from otel_ebpf_receiver.sources.http.kernel import kernel_source
    from otel_ebpf_receiver.sources.source import Source
    from otel_ebpf_receiver.telemetry.columns import Kind

    compiled = kernel_source(options.target, options.headers)
    kinds = (Kind.CLIENT, Kind.SERVER)
    return Source(
        NAME,
        compiled.part,
        compiled.record,
        all_instruments(options),
        kinds,
        lambda: HttpDecoder(options),
        exports=exports,
        active=HttpView.active if options.active else None,
    )
