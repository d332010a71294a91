"""The proxy that the environment names for a server: `http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`, as curl and Python's urllib read them.

gRPC reads the same variables by itself.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from otel_ebpf_receiver.errors import ExportError


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it listens, and what it wants as `Proxy-Authorization`; empty: nothing."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for `scheme`://`host`:`port`, None: none. Raises `ExportError` when the variable cannot be used."""
    found = {name: value for name, value in environ.items() if name.lower().endswith("_proxy")}
    # The lower case wins, also where it is empty.
    proxies = {name.lower().removesuffix("_proxy"): found[name] for name in sorted(found, key=str.islower)}
    url = proxies.get(scheme) or proxies.get("all")
    if not url or _is_left_out(host, port, proxies.get("no", "")):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        proxy_port = parts.port or 80
    except ValueError:
        parts, proxy_port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname:
        raise ExportError(
            f"{scheme}_proxy: not a proxy that can be used; expected http://[user:password@]host:port, or no_proxy for {host!r}"
        )
    authorization = ""
    if parts.username:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(words.encode()).decode()
    return Proxy(parts.hostname, proxy_port, authorization)


def _is_left_out(host: str, port: int, no_proxy: str) -> bool:
    """Whether `no_proxy` holds the host, a domain that it is in, or `*`; each with a port or without."""
    host = host.lower()
    for entry in (each.strip().lower().lstrip(".") for each in no_proxy.split(",")):
        name, colon, of_port = entry.rpartition(":")
        if colon and of_port == str(port):
            entry = name
        if entry and (entry in ("*", host) or host.endswith(f".{entry}")):
            return True
    return False
