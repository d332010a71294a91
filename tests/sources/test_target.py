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
    "https://" + "y" * 300, "ws://a", "WSS://a/b", "ftp://u:p@a/x", "coap+tcp://a/b", "a.b-c+9://h", "9a://h", "a:/", "a:/b", "abcdefg:/", "://a",
)  # fmt: skip


def test_the_scheme_is_found_without_taking_the_target_apart() -> None:
    """Methods of any length, CONNECT among them, targets of every form and length: both say the same of the same rows."""
    methods = ("GET", "POST", "CONNECT", "OPTIONS", "PROPPATCH", "A" * 23)
    records = make(*({"method": method, "target": text} for method in methods for text in TARGETS))
    connect = records["method"] == CONNECT

    short = HttpView(records, HttpOptions(), Caches(HttpOptions()), same_clock).scheme

    cut = (records["target_wire_len"] > records["target_len"]).astype(bool)
    whole = target.split(records, cut=cut, connect=connect)
    assert np.array_equal(short, whole.scheme)
    assert set(whole.others.values()) == {"coap+tcp", "a.b-c+9"}
    assert {*range(target.OTHER)} < set(short.tolist())
