"""The short look at a target says what taking it apart says."""

from __future__ import annotations

import numpy as np

from otel_ebpf_receiver.sources.http import target
from otel_ebpf_receiver.sources.http.caches import Caches
from otel_ebpf_receiver.sources.http.columns import CONNECT, HttpView
from otel_ebpf_receiver.sources.http.options import HttpOptions
from tests.sources.records import make, same_clock

TARGETS = (
    "/", "*", "", "h", "https:/", "https://", "https://a", "HTTPS://a/b?c", "http://a/https://", "/https://a", "httpsx//a", "a:443", "x" * 300,
    "https://" + "y" * 300,
)  # fmt: skip


def test_the_scheme_is_found_without_taking_the_target_apart() -> None:
    """Methods of any length, CONNECT among them, targets of every form and length: both say https of the same rows."""
    methods = ("GET", "POST", "CONNECT", "OPTIONS", "PROPPATCH", "A" * 23)
    records = make(*({"method": method, "target": text} for method in methods for text in TARGETS))
    connect = records["method"] == CONNECT

    short = HttpView(records, HttpOptions(), Caches(HttpOptions()), same_clock).https

    cut = (records["target_wire_len"] > records["target_len"]).astype(bool)
    assert np.array_equal(short, target.split(records, cut=cut, connect=connect).https)
    assert short.any()
