"""Nodes to values: converts what was read to the type of its key, and says what was expected where that fails.

It decides by types and by what `Key` says, never by a key's name. Nothing of a secret's value is ever put into a message.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import MISSING
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any

from otel_ebpf_receiver.config.key import Key, default_of, fields, optional
from otel_ebpf_receiver.config.nodes import Complain, Entry, Node
from otel_ebpf_receiver.config.schema import Network, TapMode, Taps

_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?")
_SIZES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_TIMES = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Bad(Exception):
    """The value cannot be used; the message says why."""


def suggestion(name: str, names: typing.Iterable[str]) -> str:
    """`; did you mean 'x'?`, or what there is to choose from."""
    names = list(names)
    close = difflib.get_close_matches(name, names, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(names)}"


def convert(node: Node, kind: Any, key: Key, path: str, complain: Complain) -> Any:
    """The value of `node` as `kind`; MISSING after a complaint. The caller keeps the default then."""
    try:
        value = _Converter(key, complain).value(node, kind, path)
        problem = key.check(value) if key.check and value is not None else None
        if problem:
            raise Bad(problem)
    except Bad as bad:
        complain(node.where, path, str(bad))
        return MISSING
    return value


class _Converter:
    def __init__(self, key: Key, complain: Complain) -> None:
        self._key = key
        self._complain = complain

    def value(self, node: Node, kind: Any, path: str) -> Any:
        kind, may_be_absent = optional(kind)
        if node.value is None:
            if may_be_absent:
                return None
            raise Bad(f"has no value; expected {describe(kind, self._key)}")
        if kind is Taps:
            return self._taps(node)
        if dataclasses.is_dataclass(kind):
            return self._object(node, kind, path)
        if typing.get_origin(kind) is tuple:
            return self._list(node, typing.get_args(kind)[0], path)
        if typing.get_origin(kind) is Mapping:
            return self._pairs(node, path)
        return self._scalar(node, kind)

    def _expected(self, node: Node, kind: Any) -> Bad:
        shown = "the value" if self._key.is_secret else _shown(node.value)
        return Bad(f"{shown} is not {describe(kind, self._key)}")

    def _scalar(self, node: Node, kind: Any) -> Any:
        if isinstance(node.value, list | dict):
            raise self._expected(node, kind)
        if typing.get_origin(kind) is typing.Literal:
            return self._choice(node, typing.get_args(kind))
        if kind is bool:
            return self._boolean(node)
        if kind is str:
            if not isinstance(node.value, str):
                raise Bad(f"{self._expected(node, kind)}; put it in quotes")
            return node.value
        if kind == Network:
            return self._network(node)
        return self._number(node, kind)

    def _boolean(self, node: Node) -> bool:
        if isinstance(node.value, bool):
            return node.value
        if node.is_text and (found := _BOOLEANS.get(str(node.value).strip().lower())) is not None:
            return found
        raise self._expected(node, bool)

    def _choice(self, node: Node, choices: tuple[str, ...]) -> str:
        text = str(node.value)
        if isinstance(node.value, bool | int | float) or text not in choices:
            folded = dict(self._key.also).get(text.lower(), text.lower())
            if node.is_text and folded in choices:
                return folded
            raise Bad(f"{text!r} is not known{suggestion(text, choices)}")
        return text

    def _number(self, node: Node, kind: Any) -> int | float:
        number = self._parsed(node, kind)
        key = self._key
        if key.low is not None and number < key.low:
            raise Bad(f"{_shown(node.value)} is too small; the least is {key.low:g}{_unit(key)}")
        if key.high is not None and number > key.high:
            raise Bad(f"{_shown(node.value)} is too large; the most is {key.high:g}{_unit(key)}")
        if key.multiple and number % key.multiple:
            raise Bad(f"{_shown(node.value)} is not a multiple of {key.multiple}")
        return number

    def _parsed(self, node: Node, kind: Any) -> int | float:
        value = node.value
        if isinstance(value, bool):
            raise self._expected(node, kind)
        if isinstance(value, str):
            if self._key.unit == "bytes" and (found := _SIZE.fullmatch(value.strip())):
                return int(found[1]) * _SIZES[found[2]]
            if self._key.unit == "s" and (found := _TIME.fullmatch(value.strip())):
                return float(found[1]) * _TIMES[found[2]]
            if not node.is_text:
                raise self._expected(node, kind)
            try:
                value = int(value) if kind is int else float(value)
            except ValueError:
                raise self._expected(node, kind) from None
        if kind is int and not (isinstance(value, int) or value == int(value) if math.isfinite(value) else False):
            raise self._expected(node, kind)
        if not math.isfinite(value):
            raise self._expected(node, kind)
        return int(value) if kind is int else float(value)

    def _network(self, node: Node) -> Network:
        try:
            return ip_network(str(node.value).strip())
        except ValueError as error:
            raise Bad(f"{error}; expected an address or a network such as 10.0.0.0/8") from None

    def _list(self, node: Node, kind: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(node.value, list):
            # One entry may stand alone: `headers: x-forwarded-for`.
            if isinstance(node.value, dict) and not dataclasses.is_dataclass(kind):
                raise Bad(f"is a group of keys; expected a list of {describe(kind, self._key, many=True)}")
            items = [node]
        else:
            items = node.value
        if self._key.most is not None and len(items) > self._key.most:
            raise Bad(f"has {len(items)} entries; the most is {self._key.most}")
        values = []
        for index, item in enumerate(items):
            try:
                values.append(self.value(item, kind, f"{path}[{index}]"))
            except Bad as bad:
                self._complain(item.where, f"{path}[{index}]", str(bad))
        return tuple(values)

    def _pairs(self, node: Node, path: str) -> Mapping[str, str]:
        if not isinstance(node.value, dict):
            raise self._expected(node, Mapping)
        pairs = {}
        for name, entry in node.value.items():
            value = entry.node.value
            if isinstance(value, list | dict) or value is None:
                self._complain(entry.where, f"{path}.{name}", "is not text")
            else:
                pairs[name] = str(value).lower() if isinstance(value, bool) else str(value)
        return MappingProxyType(pairs)

    def _object(self, node: Node, kind: Any, path: str) -> Any:
        known = {name: (hint, field) for name, hint, field in fields(kind)}
        entries = node.value
        if isinstance(entries, str) and kind.shorthand:
            entries = {kind.shorthand: Entry(node, node.where)}
        if not isinstance(entries, dict):
            raise Bad(f"{_shown(node.value)} is not a group of the keys {', '.join(known)}")
        given: dict[str, Any] = {}
        for name, entry in entries.items():
            if name not in known:
                self._complain(entry.where, f"{path}.{name}", f"is not known{suggestion(name, known)}")
                continue
            hint, field = known[name]
            value = convert(entry.node, hint, field.metadata["key"], f"{path}.{name}", self._complain)
            if value is not MISSING:
                given[name] = value
        self._check_absent(known, entries, node, path)
        return kind(**given)

    def _check_absent(self, known: Mapping[str, Any], entries: Mapping[str, Entry], node: Node, path: str) -> None:
        for name, (_, field) in known.items():
            check = field.metadata["key"].check
            if name not in entries and check and (problem := check(default_of(field))):
                self._complain(node.where, f"{path}.{name}", problem)

    def _taps(self, node: Node) -> Taps:
        value = node.value
        if isinstance(value, dict):
            if set(value) != {"bridge"}:
                raise Bad(f"is a group of {', '.join(map(repr, value))}; expected auto, host, bridge: NAME, or a list of names")
            return Taps(TapMode.BRIDGE, self._names(value["bridge"].node))
        if isinstance(value, str):
            text = value.strip()
            if text in ("auto", "host"):
                return Taps(TapMode(text))
            if text.startswith("bridge:"):
                return Taps(TapMode.BRIDGE, self._names(Node(text[7:].strip(), node.where)))
            return Taps(TapMode.NAMES, tuple(part.strip() for part in text.split(",") if part.strip()) or self._names(node))
        return Taps(TapMode.NAMES, self._names(node))

    def _names(self, node: Node) -> tuple[str, ...]:
        items = node.value if isinstance(node.value, list) else [node]
        names = tuple(item.value for item in items if isinstance(item.value, str) and item.value.strip())
        if not names or len(names) < len(items):
            raise Bad(f"{_shown(node.value)} is not a list of interface names; expected auto, host, bridge: NAME, or names")
        return names


def describe(kind: Any, key: Key, *, many: bool = False) -> str:
    """A type for people: `a number of seconds`."""
    kind, _ = optional(kind)
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "a list of " + describe(typing.get_args(kind)[0], key, many=True)
    if typing.get_origin(kind) is Mapping or kind is Mapping:
        return "names with a text each"
    if dataclasses.is_dataclass(kind):
        return "groups of keys" if many else "a group of keys"
    if kind in (int, float) and key.unit:
        thing = {"bytes": "a size in bytes such as 65536 or 64KiB", "s": "a time in seconds such as 5, 0.5 or 500ms"}.get(
            key.unit, f"a number of {key.unit}"
        )
        return "numbers" if many else thing
    names = {
        bool: ("true or false", "true or false"),
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        str: ("text", "texts"),
    }
    return names.get(kind, ("an address or network", "addresses or networks"))[many]


def _unit(key: Key) -> str:
    return f" {key.unit}" if key.unit else ""


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a group of keys"
    return repr(value) if not isinstance(value, bool) else str(value).lower()
