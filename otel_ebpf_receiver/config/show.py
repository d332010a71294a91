"""The configuration for reading: `config print` (effective values and their origin, as YAML) and `config schema` (JSON schema).

Secrets are masked here, in the one place where values are shown.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Mapping
from typing import Any

import yaml

from otel_ebpf_receiver.config.key import Declared, Key, declared, default_of, fields, optional
from otel_ebpf_receiver.config.load import Loaded
from otel_ebpf_receiver.config.schema import Config, Network, TapMode, Taps

MASK = "********"


def print_config(loaded: Loaded) -> str:
    """YAML that can be read back (secrets aside), each value with a comment saying where it came from."""
    rows = [
        (one, line)
        for one in declared(Config)
        for line in [f"{one.path.split('.')[-1]}: {_yaml(shown(one.key, value_of(loaded.config, one.path)))}"]
    ]
    lines: list[str] = []
    open_path: list[str] = []
    for one, line in rows:
        parents = one.path.split(".")[:-1]
        for depth, name in enumerate(parents):
            if open_path[: depth + 1] != parents[: depth + 1]:
                lines.append(f"{'  ' * depth}{name}:")
                open_path = parents[: depth + 1]
        open_path = parents
        lines.append(f"{'  ' * len(parents) + line:<70}  # {loaded.origins[one.path]}")
    return "\n".join(lines) + "\n"


def value_of(config: Config, path: str) -> Any:
    """The value of a key by its path."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def shown(key: Key, value: Any) -> Any:
    """A value as plain data, secrets masked."""
    if key.is_secret and value:
        return dict.fromkeys(value, MASK) if isinstance(value, Mapping) else MASK
    return plain(value)


def plain(value: Any) -> Any:
    """A value as YAML and JSON know them."""
    if isinstance(value, Taps):
        names: Any = list(value.names)
        return {TapMode.BRIDGE: {"bridge": names}, TapMode.NAMES: names}.get(value.mode, value.mode.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name, _, _ in fields(type(value))}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return str(text).removesuffix("\n").removesuffix("\n...")


def json_schema() -> dict[str, Any]:
    """The schema of the configuration file; closed, as the agent itself takes no unknown key."""
    schema = _object(Config)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "otel-ebpf-receiver", **schema}


def _object(kind: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, hint, field in fields(kind):
        if "section" in field.metadata:
            properties[name] = {"description": field.metadata["section"], **_or_null(_object(hint))}
        else:
            properties[name] = _property(Declared(name, hint, default_of(field), field.metadata["key"]))
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A section without entries is an empty one: YAML reads `http:` as null."""
    return {**schema, "type": [schema["type"], "null"]}


def _property(one: Declared) -> dict[str, Any]:
    kind, may_be_absent = optional(one.kind)
    schema = _type(kind, one.key)
    if may_be_absent:
        schema = {"anyOf": [schema, {"type": "null"}]}
    unit = f" Unit: {one.key.unit}." if one.key.unit else ""
    secret = {"writeOnly": True} if one.key.is_secret else {}
    return {"description": one.key.text + unit, "default": shown(one.key, one.default), **schema, **secret}


def _type(kind: Any, key: Key) -> dict[str, Any]:
    if kind is Taps:
        names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        bridge = {"anyOf": [{"type": "string"}, names]}
        group = {"type": "object", "properties": {"bridge": bridge}, "required": ["bridge"], "additionalProperties": False}
        return {"anyOf": [{"type": "string"}, names, group]}
    if dataclasses.is_dataclass(kind):
        shorthand = getattr(kind, "shorthand", "")
        return {"anyOf": [{"type": "string"}, _object(kind)]} if shorthand else _object(kind)
    if typing.get_origin(kind) is tuple:
        items = {"type": "array", "items": _type(typing.get_args(kind)[0], key)}
        return items if key.most is None else {**items, "maxItems": key.most}
    if typing.get_origin(kind) is Mapping:
        return {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    if typing.get_origin(kind) is typing.Literal:
        return {"enum": list(typing.get_args(kind))}
    if kind in (int, float):
        return _numeric(kind, key)
    return {"type": {bool: "boolean", str: "string", Network: "string"}[kind]}


def _numeric(kind: Any, key: Key) -> dict[str, Any]:
    bounds = {"minimum": key.low, "maximum": key.high, "multipleOf": key.multiple or None}
    number = {"type": "integer" if kind is int else "number", **{name: bound for name, bound in bounds.items() if bound is not None}}
    patterns = {"bytes": r"^\d+\s*(B|KiB|MiB|GiB)?$", "s": r"^\d+(\.\d+)?\s*(ms|s|m|h)?$"}
    return {"anyOf": [number, {"type": "string", "pattern": patterns[key.unit]}]} if key.unit in patterns else number
