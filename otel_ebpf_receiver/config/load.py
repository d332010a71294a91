"""The configuration from its sources: flag, own variable, standard variable, file, default, in this order of precedence.

All problems are told at once, each with its place and key. The environment and the flags are handed in; only the named file is read here.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from otel_ebpf_receiver.config import environment
from otel_ebpf_receiver.config.key import Declared, declared, fields
from otel_ebpf_receiver.config.nodes import Complain, Node, read_list
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.config.values import convert, suggestion
from otel_ebpf_receiver.config.whole import contradictions
from otel_ebpf_receiver.errors import ConfigError

DEFAULT = "default"
_NO_LINE = 1 << 30


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration, and where each value came from (`default`, `FILE:LINE`, `environment NAME`, `flag --NAME`) by key path."""

    config: Config
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Flag:
    """A command line option that sets a key. `value`: text, or a list of texts."""

    name: str
    path: str
    value: Any


class _Problems:
    """Collected complaints; one line each, those of the file first and in its order."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []

    def __call__(self, where: str, path: str, text: str) -> None:
        place = ": ".join(part for part in (where, path) if part)
        line = re.search(r":(\d+)$", where)
        self._found.append((int(line[1]) if line else _NO_LINE, f"{place}: {text}"))

    @property
    def lines(self) -> list[str]:
        return [text for _, text in sorted(self._found, key=lambda one: one[0])]


def load(path: str | None = None, environ: Mapping[str, str] = MappingProxyType({}), flags: tuple[Flag, ...] = ()) -> Loaded:
    """Read everything. Raises `ConfigError` with one line per problem."""
    complain = _Problems()
    text = "" if path is None else _read(path, complain)
    return load_text(text, path or "", environ, flags, complain)


def load_text(
    text: str, name: str, environ: Mapping[str, str] = MappingProxyType({}), flags: tuple[Flag, ...] = (), complain: _Problems | None = None
) -> Loaded:
    """As `load`, with the file's text at hand."""
    complain = complain or _Problems()
    keys = {one.path: one for one in declared(Config)}
    values: dict[str, Any] = {}
    origins = dict.fromkeys(keys, DEFAULT)
    for found in (_from_file(text, name, keys, complain), environment.read(environ, keys, complain), _from_flags(flags)):
        for path, node in found.items():
            value = convert(node, keys[path].kind, keys[path].key, path, complain)
            if value is not dataclasses.MISSING:
                values[path] = value
                origins[path] = node.where
    config = _build(Config, "", values)
    contradictions(config, origins, complain)
    if complain.lines:
        raise ConfigError("\n".join(complain.lines))
    return Loaded(config, MappingProxyType(origins))


def _read(path: str, complain: Complain) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20)
    except OSError as error:
        complain(path, "", f"cannot be read: {os.strerror(error.errno or 0)}")
    except UnicodeDecodeError as error:
        complain(path, "", f"is not UTF-8 text: byte {error.start}")
    return ""


def _from_file(text: str, name: str, keys: Mapping[str, Declared], complain: Complain) -> dict[str, Node]:
    if not text:
        return {}
    from otel_ebpf_receiver.config.document import read_yaml

    root = read_yaml(text, name, complain)
    if root is None or root.value is None:
        return {}
    found: dict[str, Node] = {}
    _flatten(root, "", keys, found, complain)
    return found


def _flatten(node: Node, path: str, keys: Mapping[str, Declared], found: dict[str, Node], complain: Complain) -> None:
    """Sections resolved: keys by their whole path. An empty section is none."""
    if node.value is None:
        return
    if not isinstance(node.value, dict):
        complain(node.where, path, f"is not a group of keys; expected {', '.join(_children(path, keys))}")
        return
    known = _children(path, keys)
    for name, entry in node.value.items():
        here = f"{path}.{name}" if path else name
        if name not in known:
            complain(entry.where, here, f"is not known{suggestion(name, known)}{_elsewhere(name, keys)}")
        elif here in keys:
            found[here] = entry.node
        else:
            _flatten(entry.node, here, keys, found, complain)


def _children(path: str, keys: Mapping[str, Declared]) -> list[str]:
    prefix = f"{path}." if path else ""
    return list(dict.fromkeys(one[len(prefix) :].split(".")[0] for one in keys if one.startswith(prefix)))


def _elsewhere(name: str, keys: Mapping[str, Declared]) -> str:
    places = [one for one in keys if re.search(rf"(^|\.){re.escape(name)}$", one)]
    return f" (there is {places[0]})" if places else ""


def _from_flags(flags: tuple[Flag, ...]) -> dict[str, Node]:
    found = {}
    for flag in flags:
        where = f"flag {flag.name}"
        is_list = isinstance(flag.value, list)
        found[flag.path] = read_list(",".join(flag.value), where) if is_list else Node(flag.value, where, is_text=True)
    return found


def _build(kind: Any, path: str, values: Mapping[str, Any]) -> Any:
    given = {}
    for name, hint, field in fields(kind):
        here = f"{path}.{name}" if path else name
        if "section" in field.metadata:
            given[name] = _build(hint, here, values)
        elif here in values:
            given[name] = values[here]
    return dataclasses.replace(kind(), **given)
