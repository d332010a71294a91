"""The files of the live page as pages of the status server. They are read when asked for: an agent at whose page nobody looks holds none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from otel_ebpf_receiver.status.pages import Answer, Page

FOLDER = Path(__file__).with_name("static")
PREFIX = "/page/"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def pages() -> Mapping[str, Page]:
    """`/` is the page; everything that it loads is under `/page/`."""
    found = {PREFIX + path.relative_to(FOLDER).as_posix(): path for path in sorted(FOLDER.rglob("*")) if path.suffix in TYPES}
    return {"/": _page(FOLDER / "index.html")} | {name: _page(path) for name, path in found.items() if path.name != "index.html"}


def _page(path: Path) -> Page:
    def read(_: bool) -> Answer:
        return 200, TYPES[path.suffix], path.read_text(encoding="utf-8")

    return read
