"""The attributes of one row, asked for once per distinct combination: what the columns' keys stand for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from otel_ebpf_receiver.sources.http import names
from otel_ebpf_receiver.sources.http.authority import address_text
from otel_ebpf_receiver.sources.http.record import METHODS, TEXT, Error, Flag, Side
from otel_ebpf_receiver.sources.http.target import OTHER, SCHEMES
from otel_ebpf_receiver.sources.source import Rows
from otel_ebpf_receiver.telemetry.columns import AttributeValue, Kind, Part

if TYPE_CHECKING:
    from otel_ebpf_receiver.sources.http.columns import HttpView

# Plain numbers: members of an enum are slow, before Python 3.12 above all.
_FLAGS = tuple((int(flag), str(flag.name).lower()) for flag in Flag)
_ERRORS = {Error.RESET: "connection_reset", Error.CLOSED: "connection_closed"}
_SIDES = {Side.CLIENT: "client", Side.SERVER: "server"}
_SCHEMES = (*SCHEMES, METHODS[0])
_FORWARDED_PAIR = re.compile(r'(?:([^=;,\s"]+)\s*=\s*)?(?:"((?:[^"\\]|\\.)*)("?)|([^=;,\s"]+))')
"""RFC 7239, section 4: what is in quotes, closed or not, is text."""
_ESCAPED = re.compile(r"\\(.)")
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9.]+):\d+")


class Describe:
    """Describes rows of a view from one side; `row` counts within `rows`."""

    def __init__(self, view: HttpView, kind: Kind, rows: Rows) -> None:
        self._view, self._kind, self._rows = view, kind, rows
        self._route = names.ROUTE if kind is Kind.SERVER else names.URL_TEMPLATE

    def metric(self, row: int) -> Part:
        """Attributes of the metrics."""
        at = int(self._rows[row])
        return Part(self._common(at) | self._asked(at))

    def active(self, row: int) -> Part:
        """Attributes of the number of requests under way, of which it is not known how they will end."""
        at = int(self._rows[row])
        out: dict[str, AttributeValue] = {names.METHOD: self._view.method_name(at) or METHODS[0]}
        return Part(out | self._asked(at))

    def outcome(self, row: int) -> Part:
        """Name, status, who was asked, and what tells how it went."""
        view, at = self._view, int(self._rows[row])
        out = self._common(at)
        out |= self._server(at)
        if self._kind is Kind.SERVER:
            out[names.URL_SCHEME] = view.scheme_text(at)
        method = view.method_name(at)
        if method is None:
            out[names.METHOD_ORIGINAL] = self._method(at)
        if view.error[at] and (side := _SIDES.get(Side(view.closed_by[at]))):
            out[names.CLOSED_BY] = side
        if flags := flag_names(int(view.records["flags"][at])):
            out[names.FLAGS] = flags
        name, route = method or "HTTP", view.routes.text(int(view.route[at]))
        return Part(out, f"{name} {route}" if route else name, view.is_error_row(self._kind, at))

    def peer(self, row: int) -> Part:
        """The other side as the wire shows it, as proxies tell it, and by name; and the User-Agent, of which each peer has few."""
        view, at = self._view, int(self._rows[row])
        is_server = self._kind is Kind.SERVER
        address = address_text((view.client_address if is_server else view.server_address)[at].tobytes())
        out: dict[str, AttributeValue] = {names.PEER_ADDRESS: address}
        headers = self._headers(at)
        if is_server:
            out[names.CLIENT_ADDRESS] = _client(headers, self._cut(at)) or address
        out |= {names.REQUEST_HEADER + name: (value,) for name, value in headers.items()}
        other = int((view.who.client if is_server else view.who.server)[at])
        agent = view.agent[at].tobytes().rstrip(b"\0")
        if agent:
            out[names.USER_AGENT] = agent.decode("utf-8", "replace")
        return Part(out | view.caches.peers.attributes(view.who.workloads, other))

    def _common(self, at: int) -> dict[str, AttributeValue]:
        view = self._view
        out: dict[str, AttributeValue] = {names.METHOD: view.method_name(at) or METHODS[0]}
        status = int(view.status[at])
        if status:
            out[names.STATUS] = status
        if view.is_error_row(self._kind, at):
            by_status = status >= (500 if self._kind is Kind.SERVER else 400)
            out[names.ERROR_TYPE] = str(status) if by_status else _ERRORS[Error(view.error[at])]
        if route := view.routes.text(int(view.route[at])):
            out[self._route] = route
        out[names.PROTOCOL_VERSION] = f"1.{view.records['minor'][at]}"
        return out

    def _asked(self, at: int) -> dict[str, AttributeValue]:
        """What was asked, as metrics of this side tell it: clients, who may write any scheme, make no series of their own with it."""
        if self._kind is Kind.SERVER:
            return {names.URL_SCHEME: _SCHEMES[min(int(self._view.scheme[at]), OTHER)]}
        return self._server(at)

    def _server(self, at: int) -> dict[str, AttributeValue]:
        address, port = self._view.server.of(at)
        return {names.SERVER_ADDRESS: address, names.SERVER_PORT: port} if port else {names.SERVER_ADDRESS: address}

    def _method(self, at: int) -> str:
        records = self._view.records
        line = records["line"][at][: int(records["method_len"][at])]
        return bytes(line).decode("utf-8", "replace")

    def _headers(self, at: int) -> dict[str, str]:
        view = self._view
        if not view.options.headers:
            return {}
        slots = np.atleast_1d(view.records["slots"][at])
        found = {name: bytes(slot).decode("utf-8", "replace") for name, slot in zip(view.options.headers, slots, strict=False)}
        return {name: value for name, value in found.items() if value}

    def _cut(self, at: int) -> frozenset[str]:
        """Headers of which not all was kept."""
        lengths = self._view.records["slot_len"][at].tolist()
        return frozenset(name for name, length in zip(self._view.options.headers, lengths, strict=False) if length > TEXT)


def flag_names(flags: int) -> tuple[str, ...]:
    return tuple(name for flag, name in _FLAGS if flags & flag)


def _client(headers: dict[str, str], cut: frozenset[str]) -> str:
    """The address of the client that the first proxy saw: Forwarded (RFC 7239), else X-Forwarded-For. Of a `cut` header the end may be a part."""
    found = _forwarded_for(headers.get("forwarded", ""), is_cut="forwarded" in cut)
    if not found:
        found, comma, _ = headers.get("x-forwarded-for", "").partition(",")
        if not comma and "x-forwarded-for" in cut:
            return ""
    return _without_port(found.strip())


def _forwarded_for(text: str, *, is_cut: bool) -> str:
    for pair in _FORWARDED_PAIR.finditer(text):
        name, quoted, closed, token = pair.groups()
        if name is None or name.lower() != "for":
            continue
        if token is not None:
            return "" if is_cut and pair.end() == len(text) else token
        if closed:
            return _ESCAPED.sub(r"\1", quoted)
    return ""


def _without_port(text: str) -> str:
    found = _WITH_PORT.fullmatch(text)
    return (found[1] or found[2]) if found else text
