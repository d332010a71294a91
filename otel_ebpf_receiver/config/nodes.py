"""Configuration as a tree that remembers where each value stands, and how the text of a variable or flag becomes one. It knows no key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands. `value`: None, bool, int, float, str, list of nodes, or dict of `Entry` by name."""

    value: Any
    where: str
    is_text: bool = False
    """From a variable or flag: everything is text there, and numbers are read from it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of a mapping, and where its name stands."""

    node: Node
    where: str


Complain = Callable[[str, str, str], None]
"""Takes where, the key's path, and what is wrong."""


def read_pairs(text: str, where: str, path: str, complain: Complain) -> Node:
    """`a=1,b=2` as a mapping, percent-decoded as the W3C baggage format and the OpenTelemetry specification say."""
    entries: dict[str, Entry] = {}
    for part in text.split(","):
        name, separator, value = part.partition("=")
        if not part.strip():
            continue
        if not separator or not name.strip():
            complain(where, path, "is not a list of name=value, separated by commas")
            break
        entries[unquote(name.strip())] = Entry(Node(unquote(value.strip()), where, is_text=True), where)
    return Node(entries, where, is_text=True)


def read_list(text: str, where: str) -> Node:
    """`a,b` as a list."""
    return Node([Node(part.strip(), where, is_text=True) for part in text.split(",") if part.strip()], where, is_text=True)
