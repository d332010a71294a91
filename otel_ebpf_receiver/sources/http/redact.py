"""Masks the values of secret query parameters. Only used where the user turned query strings on.

One regular expression runs over the queries of a whole batch; a function is called for each parameter.
"""

from __future__ import annotations

import fnmatch
import re
from urllib.parse import unquote_plus

MASK = "REDACTED"
_PARAMETER = re.compile(r"([^&;=\n]*)=([^&;\n]*)")


class Masks:
    """Globs of parameter names, in any case; names are compared as a server reads them, percent-decoded."""

    def __init__(self, masked: tuple[str, ...]) -> None:
        self._names = re.compile("|".join(fnmatch.translate(name.lower()) for name in masked) or r"(?!)")

    def redact(self, queries: list[str]) -> list[str]:
        """The queries (without line ends) with masked values."""
        return _PARAMETER.sub(self._mask, "\n".join(queries)).split("\n") if queries else []

    def _mask(self, found: re.Match[str]) -> str:
        name = found[1]
        if self._names.match(unquote_plus(name).strip().lower()):
            return f"{name}={MASK}"
        return found[0]
