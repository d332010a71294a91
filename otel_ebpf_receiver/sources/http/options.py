"""What a user may choose about the HTTP source. Built by the configuration, which reads files and the environment; nothing here does."""

from __future__ import annotations

from dataclasses import dataclass

from otel_ebpf_receiver.sources.http import record

MASKED = (
    "*token*", "*passw*", "pass", "passcode", "passphrase", "pwd", "*secret*", "*signature*", "sig", "*[_-]sig", "key", "*api?key*",
    "*apikey*", "*access?key*", "*accesskey*", "*private?key*", "code", "auth", "auth[!o]*", "authorization", "oauth*", "*credential*",
    "*csrf*", "*xsrf*", "*sess*id", "jwt", "AWSAccessKeyId", "X-Amz-*", "X-Goog-*",
)  # fmt: skip
"""Query parameters whose values are masked: tokens, passwords, signatures, and those the conventions name."""
SIZE_BOUNDS = (0, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216)


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """`methods`: those that are told by name. `headers`: names of the request headers in the record's slots. `masked`, `ignored_agents`: globs. `size_bounds`: bytes."""

    target: int = record.TARGET
    methods: tuple[str, ...] = record.METHODS[1:]
    headers: tuple[str, ...] = ()
    query: bool = False
    masked: tuple[str, ...] = MASKED
    body_sizes: bool = False
    size_bounds: tuple[float, ...] = SIZE_BOUNDS
    first_byte: bool = False
    active: bool = False
    ignored_agents: tuple[str, ...] = ()
