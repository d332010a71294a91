"""Configuration text as a tree that remembers where each value stands: YAML with its lines, and the text of a variable or flag.

It knows no key. What YAML itself forbids or leaves open (duplicates, tags, several documents) is told here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import yaml

_DEEP = 16
"""No setting is nested deeper; a document that refers to itself would never end."""
_MERGE = "tag:yaml.org,2002:merge"


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


def read_yaml(text: str, name: str, complain: Complain) -> Node | None:
    """The tree of a YAML document called `name`; None when there is none or it cannot be read."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        return None if root is None else _Reader(loader, name, complain).node(root, "", 0)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        complain(f"{name}{line}", "", " ".join(part for part in (error.context, error.problem) if part))
    except yaml.YAMLError as error:
        complain(name, "", str(error).splitlines()[0])
    finally:
        loader.dispose()
    return None


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, name: str, complain: Complain) -> None:
        self._loader = loader
        self._name = name
        self._complain = complain

    def node(self, node: yaml.Node, path: str, depth: int) -> Node:
        where = self._where(node)
        if depth > _DEEP:
            self._complain(where, path, "is nested too deeply")
            return Node(None, where)
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path, depth), where)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.node(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)], where)
        return Node(self._scalar(node, path), where)

    def _where(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}"

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        try:
            value = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._complain(self._where(node), path, getattr(error, "problem", None) or str(error))
            return None
        # A date or the like is the text that stands there.
        return value if value is None or isinstance(value, bool | int | float | str) else str(node.value)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for name_node, value_node in node.value:
            where = self._where(name_node)
            if name_node.tag == _MERGE:
                self._complain(where, path, "'<<' is not supported; write the keys out")
                continue
            name = str(name_node.value) if isinstance(name_node, yaml.ScalarNode) else "?"
            here = f"{path}.{name}" if path else name
            if name in entries:
                self._complain(where, here, f"is given twice; first in {entries[name].where}")
                continue
            entries[name] = Entry(self.node(value_node, here, depth + 1), where)
        return entries


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
