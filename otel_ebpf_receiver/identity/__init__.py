"""Who is behind an address: `directory.Directory` is what the pipeline asks, `kubernetes/` and `static.py` are where it knows from."""

from __future__ import annotations
