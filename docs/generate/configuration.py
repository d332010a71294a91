"""The configuration reference, from the one declaration of the keys."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from typing import Any

from otel_ebpf_receiver.config.key import Declared, default_of, fields, optional
from otel_ebpf_receiver.config.schema import Config
from otel_ebpf_receiver.config.show import shown

HEAD = """\
# Configuration

<!-- Made by `scripts/docs` from otel_ebpf_receiver/config/schema.py. -->

A file (`--config FILE`, YAML), environment variables and flags. Flags win over `OTEL_EBPF_RECEIVER_*`, these over `OTEL_*`, these over the
file, the file over the defaults. Nothing needs to be set: without an endpoint the agent writes to the terminal.

```sh
.venv/bin/otel-ebpf-receiver validate --config config/otel-ebpf-receiver.yaml
.venv/bin/otel-ebpf-receiver config print --config config/otel-ebpf-receiver.yaml
.venv/bin/otel-ebpf-receiver config schema
```

`validate` tells all problems at once and ends with exit code 78 if there is one; an unknown key, a wrong type and a key given twice are
problems. `config print` shows what is in force and where each value came from, with secrets masked. `config schema` is a JSON schema for
editors. `config/otel-ebpf-receiver.yaml` is a file with every key at its default and explained.

- The own variable of a key is its path in capitals: `telemetry.query.enabled` is `OTEL_EBPF_RECEIVER_TELEMETRY_QUERY_ENABLED`. Standard
  variables are named in the tables.
- In a file sizes may be written as `16MiB` and times as `500ms`, `5s`, `1m`, `1h`. The times of standard variables are whole
  milliseconds, as the OpenTelemetry specification says; one that is shorter than the key's least counts as the least.
- Where a variable is one of several words, upper and lower case are the same.
- Lists in variables are separated by commas; lists of objects (`services`, `telemetry.routes`) are YAML or JSON.
- Secrets (marked so below) belong in variables rather than in the file.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_sections(Config, "", ""))


def _sections(kind: Any, path: str, text: str) -> Iterator[str]:
    """A heading and a table of the keys of one section, then its sections."""
    keys, below = [], []
    for name, hint, field in fields(kind):
        here = f"{path}.{name}" if path else name
        if "section" in field.metadata:
            below.append((hint, here, field.metadata["section"]))
        else:
            keys.append(Declared(here, hint, default_of(field), field.metadata["key"]))
    if path:
        yield f"\n{'##' if '.' not in path else '###'} {path}\n\n{_sentence(kind, text)}\n"
    if keys:
        yield ("\n## Top level\n" if not path else "") + "\n" + _table(keys)
    for one in keys:
        yield from _entries(one)
    for hint, here, words in below:
        yield from _sections(hint, here, words)


def _sentence(kind: Any, text: str) -> str:
    """What a section is, by its docstring; by its place where that says more."""
    doc = (inspect.getdoc(kind) or "").splitlines()[0]
    return doc if doc == text or doc.startswith(text.rstrip(".")) else f"{text} {doc}"


def _table(keys: list[Declared]) -> str:
    head = "| key | default | |\n|---|---|---|\n"
    return head + "".join(f"| `{one.path.split('.')[-1]}` | {_default(one)} | {_cell(_meaning(one))} |\n" for one in keys)


def _entries(one: Declared) -> Iterator[str]:
    """The fields of a list of objects."""
    items = typing.get_args(optional(one.kind)[0])
    if not items or not dataclasses.is_dataclass(items[0]):
        return
    entries = [Declared(name, hint, default_of(field), field.metadata["key"]) for name, hint, field in fields(items[0])]
    yield f"\nEach entry of `{one.path}`: {(inspect.getdoc(items[0]) or '').splitlines()[0]}\n\n{_table(entries)}"


def _default(one: Declared) -> str:
    if one.default is dataclasses.MISSING:
        return "required"
    value = shown(one.key, one.default)
    if value in ("", [], {}, None):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{', '.join(map(str, value))}`"
    if one.key.unit == "bytes" and isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"`{value >> 20}MiB`"
    return f"`{value:g}{one.key.unit}`" if one.key.unit == "s" else f"`{value}`"


def _meaning(one: Declared) -> str:
    key, parts = one.key, [one.key.text]
    kind = optional(one.kind)[0]
    inner = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
    if typing.get_origin(inner) is typing.Literal:
        parts.append(f"One of {', '.join(f'`{choice}`' if choice else 'empty' for choice in typing.get_args(inner))}.")
    if key.unit:
        parts.append(f"Unit: {key.unit}.")
    parts += _bounds(one)
    if key.is_secret:
        parts.append("**Secret.**")
    if key.variables:
        parts.append(f"Standard: {', '.join(f'`{name}`' for name in key.variables)}.")
    return " ".join(parts)


def _bounds(one: Declared) -> Iterator[str]:
    key = one.key
    if key.low is not None and key.high is not None:
        yield f"From {_number(key.low)} to {_number(key.high)}."
    elif key.low is not None:
        yield f"At least {_number(key.low)}."
    if key.multiple:
        yield f"A multiple of {key.multiple}."
    if key.most is not None:
        yield f"At most {key.most} entries."


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
