"""The drawing of the architecture: the floors of the house and which of them each one imports, from the imports themselves."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
PACKAGE = "otel_ebpf_receiver"
WORDS = {
    "cli": "arguments, exit codes, the log's form",
    "agent": "what exists, in which order it starts and stops",
    "pipeline": "drain, once, identify, sample, encode, queue, observe",
    "sources": "one folder per kind of observation: HTTP",
    "capture": "interfaces: which there are, which are watched",
    "identity": "who is behind an address",
    "kernel": "compile, load, read the ring, replay, preflight",
    "config": "every key, declared once",
    "telemetry": "ids, sampling, routes, RED table, span bytes",
    "export": "bounded queues, senders, destinations",
    "status": "own counters, probes, the live page",
    "errors": "the tree of errors",
    "memory": "what is asked of the allocator and the kernel",
}
ROW, TOP, LEFT, WIDTH, STEP = 44, 20, 20, 430, 26


def floors() -> list[str]:
    """Names of the floors from the top, as the import check knows them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers: list[str] = next(one["layers"] for one in contracts if one["id"] == "floors")
    return layers


def imports() -> dict[str, set[str]]:
    """Which floors each floor imports directly."""
    graph = grimp.build_graph(PACKAGE)
    found: dict[str, set[str]] = {name: set() for name in floors()}
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            above, below = _floor(module), _floor(other)
            if above and below and above != below:
                found[above].add(below)
    return found


def _floor(module: str) -> str:
    return "".join(module.split(".")[1:2])


def drawing() -> str:
    """SVG: a box per floor; from each a line falls beside the boxes, with a dot at every floor that it imports."""
    names, used = floors(), imports()
    height = TOP * 2 + ROW * len(names)
    width = LEFT + WIDTH + STEP * (len(names) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="14" role="img">',
        "<title>The floors of the program and their imports</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for place, name in enumerate(names):
        parts += _box(place, name)
        parts += _line(place, names, used[name])
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(place: int, name: str) -> Iterator[str]:
    y = TOP + ROW * place
    yield f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{ROW - 10}" rx="5" fill="#e8eef7" stroke="#3b5b8c"/>'
    yield f'<text x="{LEFT + 12}" y="{y + 22}" font-weight="bold" fill="#16233a">{name}</text>'
    yield f'<text x="{LEFT + 95}" y="{y + 22}" font-size="12" fill="#33415c">{escape(WORDS[name])}</text>'


def _line(place: int, names: list[str], used: set[str]) -> Iterator[str]:
    if not used:
        return
    x, middle = LEFT + WIDTH + STEP * (place + 1), (ROW - 10) // 2
    rows = sorted(TOP + ROW * names.index(name) + middle for name in used)
    start = TOP + ROW * place + middle
    yield f'<path d="M{LEFT + WIDTH} {start} H{x} V{rows[-1]}" fill="none" stroke="#3b5b8c" stroke-width="1.3"/>'
    for row in rows:
        yield f'<path d="M{x} {row} H{LEFT + WIDTH + 6}" fill="none" stroke="#3b5b8c" stroke-width="0.6" stroke-dasharray="2 3"/>'
        yield f'<circle cx="{x}" cy="{row}" r="3.5" fill="#3b5b8c"/>'
        yield f'<path d="M{LEFT + WIDTH} {row} l7 -4 v8 z" fill="#3b5b8c"/>'
