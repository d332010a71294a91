"""Makes views of batches of HTTP records."""

from __future__ import annotations

import numpy as np

from otel_ebpf_receiver.sources.http import startlines
from otel_ebpf_receiver.sources.http.caches import Caches
from otel_ebpf_receiver.sources.http.columns import HttpView, shared_words
from otel_ebpf_receiver.sources.http.options import HttpOptions
from otel_ebpf_receiver.sources.source import Offsets
from otel_ebpf_receiver.telemetry.columns import Records, Seen
from otel_ebpf_receiver.telemetry.keys import mix


class HttpDecoder:
    """See `sources.source.Decoder`."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._caches = Caches(options)

    def seen(self, records: Records) -> Seen:
        end = np.maximum.reduce([records["response_end_ns"], records["request_end_ns"], records["request_start_ns"]])
        return Seen(mix(*shared_words(records, startlines.beginning(records))), records["tap"].astype(np.int64), records["direction"], end)

    def decode(self, records: Records, offsets_ns: Offsets) -> HttpView:
        return HttpView(records, self._options, self._caches, offsets_ns)
