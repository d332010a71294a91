"""HTTP/1.x, declared as data: its C, its record, its spans and metrics. What each column means is in `columns.py`; see README.md."""

from __future__ import annotations

import numpy as np

from otel_ebpf_receiver.sources.http.caches import Caches
from otel_ebpf_receiver.sources.http.columns import HttpView, shared_words
from otel_ebpf_receiver.sources.http.exports import exports
from otel_ebpf_receiver.sources.http.instruments import all_instruments
from otel_ebpf_receiver.sources.http.kernel import kernel_source
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.source import Offsets, Source
from otel_ebpf_receiver.telemetry.columns import Kind, Records, Seen
from otel_ebpf_receiver.telemetry.keys import mix

NAME = "http"


class HttpDecoder:
    """See `sources.source.Decoder`."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._caches = Caches(options)

    def seen(self, records: Records) -> Seen:
        end = np.maximum.reduce([records["response_end_ns"], records["request_end_ns"], records["request_start_ns"]])
        return Seen(mix(*shared_words(records)), records["tap"].astype(np.int64), records["direction"], end)

    def decode(self, records: Records, offsets_ns: Offsets) -> HttpView:
        return HttpView(records, self._options, self._caches, offsets_ns)


def source(options: HttpOptions) -> Source:
    """The HTTP source as the user wants it. CLIENT spans come first: a SERVER span may hang from one."""
    compiled = kernel_source(options.target, options.headers)
    kinds = (Kind.CLIENT, Kind.SERVER)
    return Source(NAME, compiled.part, compiled.record, all_instruments(options), kinds, lambda: HttpDecoder(options), exports=exports)
