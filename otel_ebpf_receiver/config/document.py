"""YAML as a tree that remembers its lines. What YAML itself forbids or leaves open (duplicates, tags, several documents) is told here.

Imported where there is a document to read: PyYAML takes 25 ms, and without a file nothing of it is needed.
"""

from __future__ import annotations

from typing import Any

import yaml

from otel_ebpf_receiver.config.nodes import Complain, Entry, Node

_DEEP = 16
"""No setting is nested deeper; a document that refers to itself would never end."""
_MERGE = "tag:yaml.org,2002:merge"


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
