"""Who may read a local server through somebody's browser: only its own pages. Pure.

A site that the user visits can let its name point at this host (DNS rebinding) and can load anything from here across origins. Neither
works against a server that wants to be called by address or `localhost`, and that nothing from elsewhere may embed or script.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

HEADERS = {
    "Cache-Control": "no-store",
    # Everything comes from here and nothing goes elsewhere: no inline script or style, no frame around it, no form.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(address: str) -> bool:
    """Whether only this host can reach what listens on `address`."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def refusal(headers: Mapping[str, str], *, is_local: bool) -> str:
    """Why a request is not answered, or empty. `is_local`: the server listens on loopback, where every honest Host is known."""
    if is_local and not _is_own(headers.get("host", "")):
        return "this server answers to addresses and to localhost only"
    # A link that leads here is followed; frames are forbidden by the policy above.
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and headers.get("sec-fetch-mode") != "navigate":
        return "this server answers to its own pages only"
    return ""


def _is_own(host: str) -> bool:
    """An address is never a name that somebody let point here; absent, as in HTTP/1.0, it comes from no browser."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.rpartition(":")[0] or host
    if not name or name.lower() == "localhost" or name.lower().endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
