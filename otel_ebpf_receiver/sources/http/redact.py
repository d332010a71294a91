"""Masks the values of secret query parameters. Only used where the user turned query strings on.

One regular expression runs over the queries of a whole batch; a function is called for each parameter, and remembers what names it met.
"""

from __future__ import annotations

import fnmatch
import re
from urllib.parse import unquote_plus

MASK = "REDACTED"
_NAMES_MAX = 2048
_PARAMETER = re.compile(r"([^&;=\n]*)=([^&;\n]*)")


class Masks:
    """Globs of parameter names, in any case; names are compared as a server reads them, percent-decoded."""

    def __init__(self, masked: tuple[str, ...]) -> None:
        self._masked = re.compile("|".join(fnmatch.translate(name.lower()) for name in masked) or r"(?!)")
        self._known: dict[str, bool] = {}

    def redact(self, queries: list[str]) -> list[str]:
        """The queries (without line ends) with masked values."""
        return _PARAMETER.sub(self._mask, "\n".join(queries)).split("\n") if queries else []

    def _mask(self, found: re.Match[str]) -> str:
        # A name is compared once, not in every query.
        is_masked = self._known.get(found[1])
        if is_masked is None:
            is_masked = self._look_up(found[1])
        return f"{found[1]}={MASK}" if is_masked else found[0]

    def _look_up(self, name: str) -> bool:
        if len(self._known) >= _NAMES_MAX:
            self._known.clear()
        self._known[name] = is_masked = bool(self._masked.match(unquote_plus(name).strip().lower()))
        return is_masked
