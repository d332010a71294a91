"""Environment variables as configuration: the own ones, OTEL_EBPF_RECEIVER_A_B for the key a.b, and below them the standard ones.

The environment is handed in. An empty variable counts as not set, as the OpenTelemetry specification says; its times are whole
milliseconds.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping

from otel_ebpf_receiver.config.key import OWN_PREFIX, Declared, optional
from otel_ebpf_receiver.config.nodes import Complain, Node, read_list, read_pairs
from otel_ebpf_receiver.config.schema import Taps
from otel_ebpf_receiver.config.values import suggestion

_SERVICE_LINK = re.compile(r".*(_SERVICE_HOST|_SERVICE_PORT(_.*)?|_PORT|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://\S+")
"""Kubernetes gives every pod such variables for each Service of its namespace: one named otel-ebpf-receiver collides with our prefix."""


def read(environ: Mapping[str, str], keys: Mapping[str, Declared], complain: Complain) -> dict[str, Node]:
    """Nodes by key path."""
    own = {one.variable: one for one in keys.values()}
    found: dict[str, Node] = {}
    for one in keys.values():
        for name in one.key.variables:
            if text := environ.get(name, "").strip():
                found[one.path] = _standard(text, name, one, complain)
    for name, text in environ.items():
        if not name.startswith(OWN_PREFIX) or not text.strip() or _is_service_link(name, text, own):
            continue
        if name in own:
            found[own[name].path] = _node(text.strip(), f"environment {name}", own[name], complain)
        else:
            complain(f"environment {name}", "", f"is not known{_close(name, own)}")
    return found


def _is_service_link(name: str, text: str, own: Mapping[str, Declared]) -> bool:
    if name in own:
        return bool(_LINK_VALUE.fullmatch(text)) and name.endswith("_PORT")
    return bool(_SERVICE_LINK.fullmatch(f"_{name.removeprefix(OWN_PREFIX)}"))


def _close(name: str, own: Mapping[str, Declared]) -> str:
    said = suggestion(name, own)
    return said if "did you mean" in said else "; `otel-ebpf-receiver config print` shows all of them"


def _standard(text: str, name: str, one: Declared, complain: Complain) -> Node:
    where = f"environment {name}"
    if optional(one.kind)[0] is bool:
        # The specification: only "true", in any case, is true.
        return Node(text.lower() == "true", where)
    if one.key.unit == "s":
        if not re.fullmatch(r"\d{1,18}", text):
            complain(where, one.path, f"{text!r} is not a whole number of milliseconds")
            return Node(one.default, where)
        # Every time that is not negative is valid there; one shorter than the agent's least counts as that.
        return Node(max(int(text) / 1000, one.key.low or 0.0), where)
    return _node(text, where, one, complain)


def _node(text: str, where: str, one: Declared, complain: Complain) -> Node:
    kind, _ = optional(one.kind)
    origin = typing.get_origin(kind)
    if origin is Mapping:
        return read_pairs(text, where, one.path, complain)
    if origin is tuple and not dataclasses.is_dataclass(typing.get_args(kind)[0]):
        return read_list(text, where)
    if origin is tuple and not text.startswith(("[", "{", "-")):
        return read_list(text, where)
    if origin is tuple:
        from otel_ebpf_receiver.config.document import read_yaml

        found = read_yaml(text, where, complain)
        return dataclasses.replace(_placed(found, where), is_text=True) if found else Node([], where)
    return Node(text, where, is_text=kind is not Taps)


def _placed(node: Node, where: str) -> Node:
    """The whole variable is one place: lines say nothing there."""
    return Node(node.value, where, node.is_text)
