"""What a value of the right type must still fulfil. Each check returns what is wrong, or None.

Pure, and knows nothing of where a value came from.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.6.2."""

_FRAMING = ("content-length", "transfer-encoding")
"""Headers that the kernel side reads as what they mean, and does not keep as a text."""


def power_of_two(value: int) -> str | None:
    """For sizes of kernel rings."""
    return f"{value} is not a power of two" if value & (value - 1) else None


def not_empty(value: str) -> str | None:
    """For names."""
    return None if value.strip() else "must not be empty"


def rising(values: Sequence[float]) -> str | None:
    """For bucket bounds."""
    return None if all(low < high for low, high in itertools.pairwise(values)) else "must rise from each to the next"


def header_names(values: Sequence[str]) -> str | None:
    """For names of request headers."""
    folded = [value.lower() for value in values]
    for value in values:
        if not _TOKEN.fullmatch(value):
            return f"{value!r} is not a header name"
        if len(value) > 32:
            return f"{value!r} is longer than 32 characters"
        if value.lower() in _FRAMING:
            return f"{value!r} is not kept: it says where a request ends; the size of its body is http.request.body.size"
        if folded.count(value.lower()) > 1:
            return f"{value!r} is given twice"
    return None


def methods(values: Sequence[str]) -> str | None:
    """For names of request methods."""
    return next((f"{value!r} is not a method" for value in values if not _TOKEN.fullmatch(value)), None)


def headers(values: Mapping[str, str]) -> str | None:
    """For headers to send; values are never shown."""
    for name, value in values.items():
        if not _TOKEN.fullmatch(name):
            return f"{name!r} is not a header name"
        if any(ord(character) < 32 and character != "\t" for character in value):
            return f"the value of {name!r} holds control characters"
    return None


def pattern(value: str) -> str | None:
    """For route patterns: `/users/{id}`, `/static/**`."""
    if not value.startswith("/"):
        return f"{value!r} is not a path pattern; expected one that begins with '/'"
    bad = [part for part in value.split("/") if ("{" in part or "}" in part) and not re.fullmatch(r"[^{}]*(\{[^{}/]+\}[^{}]*)+", part)]
    return f"{value!r} has an unbalanced or empty brace in {bad[0]!r}" if bad else None


def url(value: str) -> str | None:
    """For http(s) URLs; empty: not set."""
    return None if not value or _is_http(value) else f"{value!r} is not a URL; expected http(s)://host:port"


def endpoint(value: str) -> str | None:
    """For OTLP endpoints. The exporter itself asks more, knowing the protocol; this is what no protocol takes."""
    is_target = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}|[a-z][a-z0-9-]*:\S+", value)
    return None if is_target else f"{value!r} is not a URL; expected http(s)://host:port"


def _is_http(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not any(c.isspace() for c in value)
    except ValueError:
        return False
