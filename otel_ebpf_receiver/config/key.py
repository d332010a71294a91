"""How a configuration key is declared: a field of a dataclass with its default, unit, bounds and words.

`schema.py` declares with it, `load.py` reads by it. It knows no key, and reads nothing.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

OWN_PREFIX = "OTEL_EBPF_RECEIVER_"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Key:
    """What is said about a key beyond its name, type and default."""

    text: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    multiple: int = 0
    most: int | None = None
    """Entries that a list may have."""
    check: Callable[[Any], str | None] | None = None
    """Returns what is wrong with a value that has the right type; None if nothing is."""
    variables: tuple[str, ...] = ()
    """Standard environment variables that set it too, below the own one."""
    is_secret: bool = False
    also: tuple[tuple[str, str], ...] = ()
    """Other words that variables and flags may say, in lower case, each with the choice that it means."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A key in its place. `path` is dotted; `kind` the field's type."""

    path: str
    kind: Any
    default: Any
    key: Key

    @property
    def variable(self) -> str:
        """Its own environment variable."""
        return OWN_PREFIX + self.path.upper().replace(".", "_")


def key(default: _T, text: str, **more: Any) -> _T:
    """A key with its default; `more` are the other fields of `Key`."""
    field: _T = dataclasses.field(default=default, metadata={"key": Key(text, **more)})
    return field


def table(default: _T, text: str, **more: Any) -> _T:
    """A key whose default is a mapping, which a dataclass wants made anew for each object."""
    field: _T = dataclasses.field(default_factory=lambda: default, metadata={"key": Key(text, **more)})
    return field


def section(kind: type[_T], text: str) -> _T:
    """A group of keys."""
    field: _T = dataclasses.field(default_factory=kind, metadata={"section": text})
    return field


def fields(kind: Any) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Name, resolved type and field of each entry of a declared class, in order."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield field.name, hints[field.name], field


def declared(kind: Any, path: str = "") -> Iterator[Declared]:
    """Every key below a declared class, depth first, in order."""
    for name, hint, field in fields(kind):
        here = f"{path}.{name}" if path else name
        if "section" in field.metadata:
            yield from declared(hint, here)
        else:
            yield Declared(here, hint, default_of(field), field.metadata["key"])


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field; MISSING for an entry that must be given."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def optional(kind: Any) -> tuple[Any, bool]:
    """(the type without None, whether None was among its alternatives)."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        rest = [one for one in typing.get_args(kind) if one is not types.NoneType]
        if len(rest) == 1:
            return rest[0], True
    return kind, False
